// Rows of the waterfall: the depth of each span, rows hidden below folded spans, and the extent of each bar. Pure
// functions; components/waterfall.js renders them.
import { between } from './format.js';

/**
 * @typedef {object} Row
 * @property {any} span
 * @property {number} depth
 * @property {number} descendants number of spans below it
 * @property {number} left start of the bar, 0 to 1
 * @property {number} width 0 to 1
 */

/**
 * Returns the rows of spans, which must be in waterfall order: each after its parent.
 *
 * @param {any[]} spans
 * @param {string} start of the trace
 * @param {number} duration of the trace, in nanoseconds
 * @returns {Row[]}
 */
export function layOut(spans, start, duration) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  const total = Math.max(1, duration);
  for (const span of spans) {
    const parent = rows.get(span.parent_span_id);
    rows.set(span.span_id, {
      span,
      depth: parent ? parent.depth + 1 : 0,
      descendants: 0,
      left: clamp(between(start, span.start_unix_nano) / total),
      width: clamp(span.duration_ns / total),
    });
  }
  const all = [...rows.values()];
  // Children follow their parents, so in reverse order, each count is complete before it is added to the parent's.
  for (const row of all.toReversed()) {
    const parent = rows.get(row.span.parent_span_id);
    if (parent && parent !== row) parent.descendants += row.descendants + 1;
  }
  return all;
}

/** @param {number} value */
const clamp = (value) => Math.min(1, Math.max(0, value));

/** Returns the rows that are not below a folded span. @param {Row[]} rows @param {ReadonlySet<string>} folded */
export function visible(rows, folded) {
  if (folded.size === 0) return rows;
  const hidden = new Set();
  return rows.filter(({ span }) => {
    const isHidden = hidden.has(span.parent_span_id);
    if (isHidden || folded.has(span.span_id)) hidden.add(span.span_id);
    return !isHidden;
  });
}

/**
 * Returns the ancestors of a span, which must be unfolded for it to be visible.
 *
 * @param {Row[]} rows
 * @param {string} spanId
 * @returns {string[]}
 */
export function ancestors(rows, spanId) {
  const parents = new Map(rows.map(({ span }) => [span.span_id, span.parent_span_id]));
  /** @type {string[]} */
  const found = [];
  let at = parents.get(spanId);
  while (at && parents.has(at) && !found.includes(at)) {
    found.push(at);
    at = parents.get(at);
  }
  return found;
}

/**
 * Returns the ticks of the scale: round numbers, about `most` of them.
 *
 * @param {number} duration nanoseconds
 * @param {number} most
 */
export function ticks(duration, most = 6) {
  if (duration <= 0) return [0];
  const rough = duration / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  return Array.from({ length: Math.floor(duration / step) + 1 }, (_, index) => index * step);
}
