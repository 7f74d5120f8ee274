// Cells and labels of the heat map of a histogram. Pure functions.
import { count, measured, milliseconds } from './format.js';

const MAX_LABELS = 6;

/**
 * @typedef {object} Heatmap
 * @property {{from: number | null, to: number | null}[]} buckets in ascending order; null is infinity
 * @property {{time_unix_nano: string, counts: number[]}[]} columns
 */

/** Formats the bounds of a bucket. @param {{from: number | null, to: number | null}} bucket @param {string} unit */
export function bucketText({ from, to }, unit) {
  if (to === null) return `> ${measured(from, unit)}`;
  if (from === null) return `up to ${measured(to, unit)}`;
  return from === to ? measured(to, unit) : `${measured(from, unit)} to ${measured(to, unit)}`;
}

/**
 * Returns the cells with observations. The shade is between 0 and 1, on a logarithmic scale, because a few slow
 * observations matter as much as many fast ones.
 *
 * @param {Heatmap} heatmap
 * @returns {{column: number, row: number, shade: number}[]}
 */
export function cellsOf({ columns }) {
  const most = columns.flatMap(({ counts }) => counts).reduce((one, other) => Math.max(one, other), 1);
  return columns.flatMap(({ counts }, column) =>
    counts.flatMap((value, row) => (value > 0 ? [{ column, row, shade: Math.log1p(value) / Math.log1p(most) }] : [])),
  );
}

/**
 * Returns labels of bounds, each at the lower edge of a row.
 *
 * @param {Heatmap} heatmap
 * @param {string} unit
 * @returns {{row: number, text: string}[]}
 */
export function boundLabels({ buckets }, unit) {
  const every = Math.ceil(buckets.length / MAX_LABELS);
  return buckets.flatMap(({ from }, row) => (row % every === 0 && from !== null ? [{ row, text: measured(from, unit) }] : []));
}

/**
 * Describes a cell.
 *
 * @param {Heatmap} heatmap
 * @param {number} column
 * @param {number} row
 * @param {string} unit
 */
export function cellText({ buckets, columns }, column, row, unit) {
  const time = new Date(milliseconds(columns[column].time_unix_nano)).toLocaleTimeString('en-GB');
  return `${time}: ${count(columns[column].counts[row])} of ${bucketText(buckets[row], unit)}`;
}

/** Describes the whole heat map. @param {Heatmap} heatmap @param {string} unit */
export function summary({ buckets, columns }, unit) {
  const totals = buckets.map((_, row) => columns.reduce((sum, { counts }) => sum + counts[row], 0));
  const all = totals.reduce((sum, value) => sum + value, 0);
  const most = totals.indexOf(Math.max(...totals));
  if (all === 0) return 'no observations';
  return `${count(all)} observations, most of them ${bucketText(buckets[most], unit)}`;
}
