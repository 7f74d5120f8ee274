// The waterfall of a trace as rows: how deep each span is, which are hidden because a span above them is folded, and
// where its bar begins and ends. Pure; the drawing is in components/waterfall.js.
import { between } from './format.js';

/**
 * @typedef {object} Row
 * @property {any} span
 * @property {number} depth
 * @property {number} descendants how many spans are below it
 * @property {number} left where its bar begins, 0 to 1
 * @property {number} width 0 to 1
 */

/**
 * The spans must be in the order of the waterfall: each after its parent.
 *
 * @param {any[]} spans
 * @param {string} start when the trace began
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
  // Children come after their parents, so backwards every count is whole when it is added to the one above.
  for (const row of all.toReversed()) {
    const parent = rows.get(row.span.parent_span_id);
    if (parent && parent !== row) parent.descendants += row.descendants + 1;
  }
  return all;
}

/** @param {number} value */
const clamp = (value) => Math.min(1, Math.max(0, value));

/** The rows that are not below a folded span. @param {Row[]} rows @param {ReadonlySet<string>} folded */
export function visible(rows, folded) {
  if (folded.size === 0) return rows;
  const hidden = new Set();
  return rows.filter(({ span }) => {
    const isHidden = hidden.has(span.parent_span_id);
    if (isHidden || folded.has(span.span_id)) hidden.add(span.span_id);
    return !isHidden;
  });
}

/** The spans above one, which must be open for it to be seen. @param {Row[]} rows @param {string} spanId @returns {string[]} */
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

/** The moments at which the scale has lines: round numbers, at most `most`. @param {number} duration nanoseconds @param {number} most */
export function ticks(duration, most = 6) {
  if (duration <= 0) return [0];
  const rough = duration / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  return Array.from({ length: Math.floor(duration / step) + 1 }, (_, index) => index * step);
}
