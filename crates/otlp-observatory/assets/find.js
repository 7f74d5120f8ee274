// Finds spans of a trace in the query language of the lists, without parentheses: words are text anywhere in a span,
// `key=value` and other comparisons are about a field or an attribute, `!` negates a term, `or` separates alternatives. An
// incomplete term is text, because the user is still typing. All names of an attribute are equal. Pure functions.
import { textOf } from './text.js';

/** @typedef {import('./waterfall.js').Row} Row */
/** @typedef {(span: any) => boolean} Matcher */

const QUOTED = String.raw`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`;
const TERM = new RegExp(
  String.raw`(!?)\s*(${QUOTED}|[^\s"'=!~<>]+)(?:\s*(!=|!~|[<>]=?|=|~)\s*(${QUOTED}|\S+))?|\S`,
  'g',
);

const FIELDS = /** @type {Record<string, (span: any) => unknown[]>} */ ({
  name: (span) => [span.name],
  service: (span) => [span.service],
  scope: (span) => [span.scope],
  kind: (span) => [span.kind],
  span: (span) => [span.span_id],
  dur: (span) => [span.duration_ns],
  error: (span) => [span.status === 'error'],
  event: (span) => span.events.map((/** @type {any} */ { name }) => name),
  text: (span) => [textIn(span)],
  status: ({ status, attributes }) => [
    status,
    attributes['http.response.status_code'] ?? attributes['http.status_code'],
  ],
});

const NANOSECONDS = /** @type {Record<string, number>} */ ({
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
});

/** @type {WeakMap<object, string>} */
const texts = new WeakMap();

/** Returns all text of a span in lower case. @param {any} span */
function textIn(span) {
  let text = texts.get(span);
  if (text === undefined) {
    const events = span.events.map((/** @type {any} */ { name, attributes }) => [name, pairs(attributes)]);
    text = [span.name, span.service, span.scope, span.status_message, pairs(span.attributes), pairs(span.resource)]
      .concat(events, span.span_id)
      .flat(2)
      .join('\n')
      .toLowerCase();
    texts.set(span, text);
  }
  return text;
}

/** @param {Record<string, unknown>} attributes */
const pairs = (attributes) => Object.entries(attributes ?? {}).map(([key, value]) => `${key}=${textOf(value)}`);

/** @param {string} part */
const unquoted = (part) => (/^["']/.test(part) ? part.slice(1, -1).replace(/\\(.)/g, '$1') : part);

/** @param {any} span @param {string[]} names of an attribute @returns {unknown[]} */
function attributesOf(span, names) {
  const holders = [span, ...span.events].map(({ attributes }) => attributes);
  return [...holders, span.resource].flatMap((attributes) => names.map((name) => attributes?.[name]));
}

/**
 * @param {string} key
 * @param {string} operator
 * @param {string} value
 * @param {string[][]} aliases
 * @returns {Matcher}
 */
function comparison(key, operator, value, aliases) {
  const attribute = unquoted(key);
  const names = [attribute, ...aliases.filter((group) => group.includes(attribute)).flat()];
  const valuesOf = Object.hasOwn(FIELDS, key) ? FIELDS[key] : (/** @type {any} */ span) => attributesOf(span, names);
  const wanted = unquoted(value);
  const [, digits, unit] = /^(-?[\d.]+)(\D*)$/.exec(wanted) ?? [];
  const number = Number(digits) * (key === 'dur' ? (NANOSECONDS[unit] ?? NaN) : unit ? NaN : 1);
  const test = (/** @type {unknown} */ found) => {
    const text = textOf(found);
    if (operator.endsWith('~')) return text.toLowerCase().includes(wanted.toLowerCase());
    if (/^!?=/.test(operator)) return value === '*' || text === wanted || found === number;
    if (operator.startsWith('<')) return Number(found) < number || (operator === '<=' && Number(found) === number);
    return Number(found) > number || (operator === '>=' && Number(found) === number);
  };
  return (span) => {
    const found = valuesOf(span).filter((one) => one !== undefined && one !== null && one !== '');
    return operator.startsWith('!') ? found.length > 0 && !found.some(test) : found.some(test);
  };
}

/**
 * @param {string} query
 * @param {string[][]} aliases names of attributes that have several
 * @returns {Matcher | null} null for an empty query
 */
function matcher(query, aliases) {
  /** @type {Matcher[][]} */
  const alternatives = [[]];
  for (const [, not, key, operator, value] of query.matchAll(TERM)) {
    if (!key || (!not && !operator && key === 'and')) continue;
    if (!not && !operator && key === 'or') {
      alternatives.push([]);
      continue;
    }
    const word = unquoted(key).toLowerCase();
    const test = operator
      ? comparison(key, operator, value, aliases)
      : (/** @type {any} */ span) => textIn(span).includes(word);
    alternatives.at(-1)?.push(not ? (span) => !test(span) : test);
  }
  const terms = alternatives.filter((one) => one.length > 0);
  return terms.length > 0 ? (span) => terms.some((all) => all.every((test) => test(span))) : null;
}

/**
 * Returns the rows that match, in tree order.
 *
 * @param {Row[]} rows
 * @param {string} query
 * @param {string[][]} [aliases] names of attributes that have several
 */
export function find(rows, query, aliases = []) {
  const matches = matcher(query, aliases);
  return matches ? rows.filter(({ span }) => matches(span)) : [];
}

/** Returns the query that finds the spans with a name. @param {string} name */
export const named = (name) => `name="${name.replace(/["\\]/g, '\\$&')}"`;
