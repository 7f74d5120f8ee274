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

// Only printable ASCII characters, so that nothing in an address is invisible or reorders it.
const ADDRESS = /\bhttps?:\/\/[!#$%&'()*+,\-./0-9:;=?@A-Z[\]_a-z~]+/g;

/**
 * Splits text at its http and https addresses, which have a `url`. Punctuation that ends a sentence is not part of them.
 *
 * @param {string} text
 * @returns {{text: string, url?: string}[]}
 */
export function addresses(text) {
  /** @type {{text: string, url?: string}[]} */
  const found = [];
  let from = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const url = match[0].replace(/[.,:;!?'*]+$|(?<=^[^(]*)\)+[.,:;!?'*]*$|(?<=^[^[]*)\]+[.,:;!?'*]*$/, '');
    if (!URL.canParse(url)) continue;
    if (match.index > from) found.push({ text: text.slice(from, match.index) });
    found.push({ text: url, url });
    from = match.index + url.length;
  }
  if (from < text.length || found.length === 0) found.push({ text: text.slice(from) });
  return found;
}

/** Longest text that is formatted as JSON. */
const MAX_JSON = 200_000;

const JSON_TOKEN = /"(?:[^"\\]|\\.)*"|\{\s*\}|\[\s*\]|[{}[\],:]|\s+/g;

/**
 * Formats text that is a JSON object or array, with a line for each value; null for other text. Numbers stay as they are,
 * because JavaScript would round large ones.
 *
 * @param {string} text
 */
export function indentedJson(text) {
  if (text.length > MAX_JSON || !/^\s*[{[]/.test(text)) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let depth = 0;
  const line = (/** @type {number} */ by) => {
    depth += by;
    return `\n${'  '.repeat(depth)}`;
  };
  return text.replace(JSON_TOKEN, (token) => {
    if (token === '{' || token === '[') return token + line(1);
    if (token === '}' || token === ']') return line(-1) + token;
    if (token === ',') return token + line(0);
    return token === ':' ? ': ' : token.startsWith('"') ? token : token.replace(/\s/g, '');
  });
}
