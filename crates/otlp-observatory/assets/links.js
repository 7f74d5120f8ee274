// Links between spans, in the direction that spans do not know: which spans link to a span. Pure functions.

/** @typedef {import('./waterfall.js').Row} Row */
/** @typedef {{trace_id: string, span_id: string, name?: string, service?: string}} BackLink a span that has the link */

/**
 * Returns the links to each row, by its key: those of the trace's own spans, and those of other traces.
 *
 * @param {Row[]} rows
 * @param {string} traceId
 * @param {any[]} linkedFrom links of other traces, from the server
 * @returns {Map<string, BackLink[]>}
 */
export function backLinksOf(rows, traceId, linkedFrom) {
  /** @type {Map<string, BackLink[]>} */
  const found = new Map();
  const add = (/** @type {string} */ to, /** @type {BackLink} */ link) =>
    found.set(to, [...(found.get(to) ?? []), link]);
  for (const { span } of rows) {
    for (const { trace_id, span_id: to } of span.links) {
      if (trace_id === traceId) add(to, { trace_id, span_id: span.span_id, name: span.name, service: span.service });
    }
  }
  for (const { to_span_id: to, ...link } of linkedFrom) add(to, link);
  return found;
}
