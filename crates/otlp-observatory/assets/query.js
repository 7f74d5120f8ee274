// The query language as far as the pages need it: what is completed at the caret, quoting, and pasted trace ids. The
// server parses queries. Pure functions.
import { isId, traceAddress } from './router.js';

const OPERATOR = /^(?:!=|!~|<=|>=|=|~|<|>)/;

/** Fields that are compared by order. */
const ORDERED = new Set(['dur', 'trace.dur', 'spans', 'errors', 'services', 'level']);

const MAX_OPTIONS = 12;

/**
 * Part of a query that is completed: a key, or the value of `key`, from `from` to `to`.
 *
 * @typedef {{key: string | null, from: number, to: number, typed: string}} Context
 */

/** Returns the end of the quoted text that starts at `at`. @param {string} text @param {number} at */
function quoteEnd(text, at) {
  let end = at + 1;
  while (end < text.length && text[end] !== text[at]) end += text[end] === '\\' ? 2 : 1;
  return Math.min(end + 1, text.length);
}

const isQuote = (/** @type {string | undefined} */ letter) => letter === '"' || letter === "'";

/** Returns the text of a part without its quotes. @param {string} part */
const unquoted = (part) =>
  isQuote(part[0]) ? part.slice(1, quoteEnd(part, 0)).replace(/["']$/, '').replace(/\\(.)/g, '$1') : part;

/** Returns the first index from `at` for which `ends` is true. @param {string} text @param {number} at @param {(at: number) => boolean} ends */
function scan(text, at, ends) {
  let end = at;
  while (end < text.length && !ends(end)) end += 1;
  return end;
}

/** Returns what is completed at a caret. @param {string} text @param {number} caret @returns {Context} */
export function contextAt(text, caret) {
  let at = 0;
  for (;;) {
    const from = scan(text, at, (index) => !/[\s()!]/.test(text[index]));
    if (caret < from || from === text.length) return { key: null, from: caret, to: caret, typed: '' };
    const to = isQuote(text[from])
      ? quoteEnd(text, from)
      : scan(text, from, (index) => /[\s()]/.test(text[index]) || OPERATOR.test(text.slice(index)));
    if (caret <= to) return { key: null, from, to, typed: unquoted(text.slice(from, caret)) };
    const operator = OPERATOR.exec(text.slice(to).trimStart());
    at = to === from ? to + 1 : to;
    if (!operator) continue;
    const value = text.indexOf(operator[0], to) + operator[0].length;
    const start = scan(text, value, (index) => !/\s/.test(text[index]));
    const end = isQuote(text[start]) ? quoteEnd(text, start) : scan(text, start, (index) => /[\s)]/.test(text[index]));
    if (caret >= value && caret <= end) {
      const first = Math.min(start, caret);
      return { key: unquoted(text.slice(from, to)), from: first, to: end, typed: unquoted(text.slice(first, caret)) };
    }
    at = Math.max(end, to + 1);
  }
}

/** @param {string} text */
const quoted = (text) => `"${text.replace(/["\\]/g, '\\$&')}"`;

/** Returns a value as it is written in a query. @param {string} value */
export const writeValue = (value) => (/^[^\s"'()=~<>!*][^\s()*]*$/.test(value) ? value : quoted(value));

/** Returns the key of an attribute as it is written in a query. @param {string} key @param {string[]} fields */
export const writeKey = (key, fields) =>
  /^[^\s"'()=~<>!]+$/.test(key) && !fields.includes(key) ? key : quoted(key);

/**
 * Returns the texts that may replace the part at the caret.
 *
 * @param {Context} context
 * @param {{fields: string[], keys: string[], values: string[]}} known
 * @returns {{label: string, text: string}[]} `text` is the replacement
 */
export function optionsFor(context, { fields, keys, values }) {
  const withOperator = (/** @type {string} */ key) => `${key}${ORDERED.has(key) ? '>' : '='}`;
  const options =
    context.key === null
      ? [
          ...fields.map((label) => ({ label, text: withOperator(label) })),
          ...keys.map((label) => ({ label, text: withOperator(writeKey(label, fields)) })),
        ]
      : values.map((label) => ({ label, text: `${writeValue(label)} ` }));
  const typed = context.typed.toLowerCase();
  const rank = (/** @type {{label: string}} */ { label }) => label.toLowerCase().indexOf(typed);
  const found = options.filter((option) => rank(option) >= 0 && option.label !== context.typed);
  // The sort is stable, so the frequent ones stay first.
  return found.sort((a, b) => Math.min(1, rank(a)) - Math.min(1, rank(b))).slice(0, MAX_OPTIONS);
}

/** Returns the address of the trace whose id, or whose `traceparent`, is the whole text; null for any other text. @param {string} text */
export function traceOf(text) {
  const [, id, span] = /^\s*(?:00-)?([0-9a-f]{32})(?:-([0-9a-f]{16})-[0-9a-f]{2})?\s*$/i.exec(text) ?? [];
  if (!id || !isId(id.toLowerCase()) || /^0+$/.test(id)) return null;
  return traceAddress(id.toLowerCase(), span?.toLowerCase());
}
