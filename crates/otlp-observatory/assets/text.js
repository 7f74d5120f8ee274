// Telemetry is text that others wrote. Here it is made fit to be seen: characters that a reader cannot see, or that
// turn the text around them about, are split off so that they can be shown by their name. Pure.

// Controls but tab and line breaks, zero-width characters, and what changes the direction of text.
const UNSEEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** @typedef {{text: string, unseen: boolean}} Piece */

/** The pieces of a text; an unseen character is a piece with its name, as `U+202E`. @param {string} text @returns {Piece[]} */
export function pieces(text) {
  /** @type {Piece[]} */
  const found = [];
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index), unseen: false });
    found.push({ text: name(match[0]), unseen: true });
    from = match.index + match[0].length;
  }
  if (from < text.length || found.length === 0) found.push({ text: text.slice(from), unseen: false });
  return found;
}

/** @param {string} character */
const name = (character) => `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;

/** The same in one plain text, for titles and labels, where no element can stand. @param {string} text */
export const plain = (text) => text.replace(UNSEEN, (character) => `<${name(character)}>`);

/**
 * The first `limit` characters, never half a surrogate pair.
 *
 * @param {string} text
 * @param {number} limit
 */
export function clip(text, limit) {
  if (text.length <= limit) return text;
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? limit - 1 : limit);
}

/** Any JSON value as text: strings as they are, the rest as JSON. @param {unknown} value @param {number} [indent] */
export function textOf(value, indent) {
  return typeof value === 'string' ? value : (JSON.stringify(value, null, indent) ?? '');
}
