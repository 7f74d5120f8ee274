// Prepares untrusted text for display: shows invisible characters, and characters that change the direction of the
// surrounding text, as code points. Pure functions.

// Control characters except tab and line breaks, zero-width characters, and direction marks.
const INVISIBLE =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** @typedef {{text: string, invisible: boolean}} Piece */

/**
 * Splits text into pieces. An invisible character becomes a piece with its code point, like `U+202E`.
 *
 * @param {string} text
 * @returns {Piece[]}
 */
export function pieces(text) {
  /** @type {Piece[]} */
  const found = [];
  let from = 0;
  for (const match of text.matchAll(INVISIBLE)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index), invisible: false });
    found.push({ text: name(match[0]), invisible: true });
    from = match.index + match[0].length;
  }
  if (from < text.length || found.length === 0) found.push({ text: text.slice(from), invisible: false });
  return found;
}

/** @param {string} character */
const name = (character) => `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;

/** Replaces invisible characters in plain text, for titles and labels. @param {string} text */
export const plain = (text) => text.replace(INVISIBLE, (character) => `<${name(character)}>`);

/**
 * Returns at most `limit` characters without splitting a surrogate pair.
 *
 * @param {string} text
 * @param {number} limit
 */
export function clip(text, limit) {
  if (text.length <= limit) return text;
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? limit - 1 : limit);
}

/** Formats a JSON value: strings unchanged, other values as JSON. @param {unknown} value @param {number} [indent] */
export function textOf(value, indent) {
  return typeof value === 'string' ? value : (JSON.stringify(value, null, indent) ?? '');
}
