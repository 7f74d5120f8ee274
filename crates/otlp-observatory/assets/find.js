// Finds spans of a trace. A search is text (in names, services, messages, attributes and events), or `key=value` or
// `key~part`, where the key is name, service, kind, status, id or an attribute's; `!` in front negates. Case is ignored.
// Pure functions.
import { textOf } from './text.js';

/** @typedef {import('./waterfall.js').Row} Row */

/** @type {WeakMap<object, string>} */
const texts = new WeakMap();

/** Returns all text of a span in lower case. @param {any} span */
function textIn(span) {
  let text = texts.get(span);
  if (text === undefined) {
    const events = span.events.map((/** @type {any} */ { name, attributes }) => [name, attributes]);
    text = [
      span.name,
      span.service,
      span.status_message,
      span.span_id,
      ...pairs(span.attributes),
      ...pairs(span.resource),
    ]
      .concat(events.flatMap(([name, attributes]) => [name, ...pairs(attributes)]))
      .join('\n')
      .toLowerCase();
    texts.set(span, text);
  }
  return text;
}

/** @param {Record<string, unknown>} attributes */
const pairs = (attributes) => Object.entries(attributes ?? {}).map(([key, value]) => `${key}=${textOf(value)}`);

/** @param {any} span @param {string} key */
function valueOf(span, key) {
  if (key === 'id') return span.span_id;
  if (['name', 'service', 'kind', 'status'].includes(key)) return span[key];
  return span.attributes[key] ?? span.resource?.[key];
}

/** @param {string} query @returns {((span: any) => boolean) | null} null for an empty query */
export function matcher(query) {
  const [, not, term] = /^(!?)\s*(.*)$/s.exec(query.trim()) ?? [];
  if (!term) return null;
  const [, key, operator, value] = /^([\w.:/-]+)([=~])(.*)$/s.exec(term) ?? [];
  const wanted = (key ? value : term).toLowerCase();
  const test = (/** @type {any} */ span) => {
    if (!key) return textIn(span).includes(wanted);
    const found = valueOf(span, key);
    if (found === undefined || found === null) return false;
    const text = textOf(found).toLowerCase();
    return operator === '=' ? text === wanted : text.includes(wanted);
  };
  return not ? (span) => !test(span) : test;
}

/** Returns the rows that match, in tree order. @param {Row[]} rows @param {string} query */
export function find(rows, query) {
  const matches = matcher(query);
  return matches ? rows.filter(({ span }) => matches(span)) : [];
}
