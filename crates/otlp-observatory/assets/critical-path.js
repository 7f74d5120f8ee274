// The critical path of a trace: going back from the end of the root's work, always the part that ended last, so that
// shortening it would have ended the work earlier. Pure functions.

/** @typedef {import('./waterfall.js').Row} Row */
/** @typedef {{from: number, to: number}} Range */

/**
 * Returns the parts of each span that are on the critical path, the latest first. Work that outlasts its parent, such as
 * a task that a request sent, is part of the path.
 *
 * @param {Row[]} rows in tree order
 * @returns {Map<Row, Range[]>}
 */
export function criticalPath(rows) {
  /** @type {Map<Row, Range[]>} */
  const path = new Map();
  const root = rows.find(({ span }) => !span.parent_span_id) ?? rows[0];
  const open = root ? [{ row: root, until: root.reach }] : [];
  for (let entry = open.pop(); entry; entry = open.pop()) {
    const { row, until } = entry;
    let at = until;
    const add = (/** @type {number} */ from) => {
      const part = { from: Math.max(from, row.start), to: Math.min(at, row.end) };
      if (part.from >= part.to) return;
      if (!path.has(row)) path.set(row, []);
      path.get(row)?.push(part);
    };
    for (const child of row.children.toSorted((one, other) => other.reach - one.reach)) {
      // A sibling that ended later than `at` ran beside the path, and delayed nothing.
      if (child.reach > at || child.reach <= row.start) continue;
      add(child.reach);
      open.push({ row: child, until: child.reach });
      at = Math.max(row.start, Math.min(at, child.start));
    }
    add(row.start);
  }
  return path;
}

/** @param {Range[] | undefined} parts */
export const timeIn = (parts) => (parts ?? []).reduce((sum, { from, to }) => sum + to - from, 0);
