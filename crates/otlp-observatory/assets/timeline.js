// The time scale of a trace: the range that is shown, positions in it, its ticks, and the minimap. Times are nanoseconds
// since the start of the trace. Pure functions.

/** @typedef {{from: number, to: number}} Range */
/** @typedef {import('./waterfall.js').Row} Row */

/** Shortest range that can be shown: more magnification than this shows nothing new. */
const MIN_RANGE = 100;

const clamp = (/** @type {number} */ value, low = 0, high = 1) => Math.min(high, Math.max(low, value));

export const lengthOf = (/** @type {Range} */ { from, to }) => Math.max(1, to - from);

/**
 * Returns the position of a row's bar in the range, from 0 to 1. `outside` names the side on which a bar that is not in
 * the range lies.
 *
 * @param {{start: number, end: number}} row
 * @param {Range} range
 * @returns {{left: number, width: number, outside: 'before' | 'after' | null}}
 */
export function place({ start, end }, range) {
  const left = clamp((start - range.from) / lengthOf(range));
  const right = clamp((end - range.from) / lengthOf(range));
  const outside = end < range.from ? 'before' : start > range.to ? 'after' : null;
  return { left, width: right - left, outside };
}

/** Number of parts of a range that can be told apart. */
const RESOLUTION = 1000;

/**
 * Returns the parts that are in the range, in order; parts that cannot be told apart are joined.
 *
 * @param {Range[]} parts
 * @param {Range} range
 */
export function join(parts, range) {
  /** @type {Range[]} */
  const joined = [];
  const gap = lengthOf(range) / RESOLUTION;
  for (const { from, to } of parts.toSorted((one, other) => one.from - other.from)) {
    const last = joined.at(-1);
    if (to < range.from || from > range.to) continue;
    if (last && from - last.to < gap) last.to = Math.max(last.to, to);
    else joined.push({ from, to });
  }
  return joined;
}

/** Returns the range within `whole`, and not shorter than the shortest. @param {Range} range @param {Range} whole */
export function within({ from, to }, whole) {
  const length = clamp(Math.abs(to - from), Math.min(MIN_RANGE, lengthOf(whole)), lengthOf(whole));
  const start = clamp(Math.min(from, to), whole.from, whole.to - length);
  return { from: start, to: start + length };
}

/** Magnifies the range around its centre. @param {Range} range @param {number} factor @param {Range} whole */
export function zoom(range, factor, whole) {
  const half = lengthOf(range) / factor / 2;
  const centre = (range.from + range.to) / 2;
  return within({ from: centre - half, to: centre + half }, whole);
}

/** Moves the range by a part of its length. @param {Range} range @param {number} part @param {Range} whole */
export function pan(range, part, whole) {
  const by = part * lengthOf(range);
  return within({ from: range.from + by, to: range.to + by }, whole);
}

/** Moves the range if a row is outside of it. @param {Range} range @param {Row} row @param {Range} whole */
export function follow(range, row, whole) {
  if (!place(row, range).outside) return range;
  return within({ from: row.start, to: row.start + lengthOf(range) }, whole);
}

/**
 * Returns the ticks of a range and the digits that tell them apart: round numbers, about `most` of them.
 *
 * @param {Range} range
 * @param {number} most
 */
export function ticks({ from, to }, most = 6) {
  if (to <= from) return { at: [from], digits: 3 };
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const first = Math.ceil(from / step);
  const at = Array.from({ length: Math.floor(to / step) - first + 1 }, (_, index) => (first + index) * step);
  return { at, digits: Math.max(3, Math.ceil(Math.log10(Math.max(1, Math.abs(to)) / step)) + 1) };
}

/** Size of the minimap in its own units. */
export const MAP = { width: 1000, height: 40 };

/**
 * Returns the minimap as an SVG path for each service, and one for failed spans (the key is null). Spans that would cover
 * each other are drawn once.
 *
 * @param {Row[]} rows
 * @param {Range} whole
 * @returns {Map<string | null, string>}
 */
export function minimap(rows, whole) {
  /** @type {Map<string | null, Set<string>>} */
  const lines = new Map();
  const height = Math.max(1, MAP.height / Math.max(1, rows.length));
  for (const row of rows) {
    const { left, width } = place(row, whole);
    const from = Math.round(left * MAP.width);
    const to = Math.max(from + 1, Math.round((left + width) * MAP.width));
    const y = Math.floor((row.index * MAP.height) / rows.length / height) * height + height / 2;
    const name = row.span.status === 'error' ? null : row.span.service;
    if (!lines.has(name)) lines.set(name, new Set());
    lines.get(name)?.add(`M${from} ${Number(y.toFixed(1))}H${to}`);
  }
  return new Map([...lines].map(([name, parts]) => [name, [...parts].join('')]));
}
