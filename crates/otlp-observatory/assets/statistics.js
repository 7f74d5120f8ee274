// Statistics of a trace's spans by service and name. Pure functions.
import { timeIn } from './critical-path.js';
import { isFailed } from './waterfall.js';

/** @typedef {import('./waterfall.js').Row} Row */

/**
 * @typedef {object} Statistic
 * @property {string} service
 * @property {string} name
 * @property {number} count
 * @property {number} errors
 * @property {number} total sum of the durations; parallel spans count several times
 * @property {number} self time in which no child ran
 * @property {number} critical time on the critical path
 * @property {number} max
 */

/** Returns the time in which none of the span's children ran. @param {Row} row */
export function selfTime({ start, end, children }) {
  let self = end - start;
  let covered = start;
  for (const child of children.toSorted((one, other) => one.start - other.start)) {
    const from = Math.max(covered, child.start);
    const to = Math.min(end, child.end);
    if (to <= from) continue;
    self -= to - from;
    covered = to;
  }
  return self;
}

/**
 * @param {Row[]} rows
 * @param {Map<Row, {from: number, to: number}[]>} critical
 * @returns {Statistic[]} the largest self time first
 */
export function statistics(rows, critical) {
  /** @type {Map<string, Statistic>} */
  const found = new Map();
  for (const row of rows) {
    const { service, name } = row.span;
    const key = JSON.stringify([service, name]);
    const sum = found.get(key) ?? { service, name, count: 0, errors: 0, total: 0, self: 0, critical: 0, max: 0 };
    found.set(key, sum);
    const duration = row.end - row.start;
    sum.count += 1;
    sum.errors += isFailed(row) ? 1 : 0;
    sum.total += duration;
    sum.self += selfTime(row);
    sum.critical += timeIn(critical.get(row));
    sum.max = Math.max(sum.max, duration);
  }
  return [...found.values()].sort((one, other) => other.self - one.self);
}
