// Converts the points of metrics to columns for charts. Pure functions.
import { measured, milliseconds } from './format.js';
import { hashOf } from './hash.js';
import { textOf } from './text.js';

/** Fields of points to draw, the most important first. @type {Record<string, string[]>} */
const FIELDS = {
  counter: ['rate'],
  updowncounter: ['value'],
  gauge: ['value'],
  histogram: ['p50', 'p95', 'p99'],
  exponential_histogram: ['p50', 'p95', 'p99'],
};

export const isHistogram = (/** @type {string} */ type) => type === 'histogram' || type === 'exponential_histogram';

/** @param {string} type */
export const fieldsOf = (type) => FIELDS[type] ?? ['value'];

/** Returns the most important field of a metric's points. @param {any} metric */
export function headline(metric) {
  if (isHistogram(metric.type)) return hasPercentiles(metric.series) ? 'p95' : 'mean';
  if (metric.type !== 'summary') return fieldsOf(metric.type)[0];
  const quantiles = Object.keys(metric.series[0]?.points.at(-1)?.quantiles ?? {});
  return quantiles.length > 0 ? `quantiles:${quantiles[quantiles.length - 1]}` : 'count';
}

/** Returns whether a histogram has buckets. Without observations, it is not known. @param {any[]} series */
export const hasPercentiles = (series) =>
  !series.some(({ points }) => points.some((/** @type {any} */ point) => point.count > 0 && point.p95 === null));

/** Formats attributes in one line, independent of their order. @param {Record<string, unknown>} attributes */
export function labelOf(attributes) {
  const parts = Object.entries(attributes ?? {}).sort(([one], [other]) => (one < other ? -1 : 1));
  return parts.map(([name, value]) => `${name}=${textOf(value)}`).join(', ') || 'all';
}

/** Returns the attributes and the resource, because two processes may report the same attributes. @param {any} series */
const identityOf = (series) => ({ ...series.resource, ...series.attributes });

/** Returns a short, stable key of a series for addresses. @param {any} series */
export const keyOf = (series) => hashOf(labelOf(identityOf(series))).toString(36);

/**
 * Returns a label of each series, made of the attributes that differ, and the attributes that all series share.
 *
 * @param {any[]} series
 * @returns {{labels: Map<any, string>, common: Record<string, unknown>}}
 */
export function labelsOf(series) {
  const identities = series.map(identityOf);
  const [first = {}] = identities;
  const isShared = (/** @type {string} */ name) =>
    identities.every((identity) => Object.hasOwn(identity, name) && textOf(identity[name]) === textOf(first[name]));
  const names = Object.keys(first).filter(isShared);
  const shared = new Set(names);
  return {
    labels: new Map(
      series.map((one, index) => [
        one,
        labelOf(Object.fromEntries(Object.entries(identities[index]).filter(([name]) => !shared.has(name)))),
      ]),
    ),
    common: Object.fromEntries(
      names.filter((name) => Object.hasOwn(series[0].attributes, name)).map((name) => [name, first[name]]),
    ),
  };
}

/**
 * Returns a point's number; `quantiles:0.5` is a quantile of a summary.
 *
 * @param {any} point
 * @param {string} field
 * @returns {number | null}
 */
export function numberOf(point, field) {
  const value = field.startsWith('quantiles:') ? point.quantiles?.[field.slice(10)] : point[field];
  // Integers beyond 2^53 are strings; the nearest number is precise enough for a chart.
  const number = typeof value === 'string' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : null;
}

/** Number of typical intervals without a point after which a line is interrupted. */
const MAX_INTERVALS = 3;

/**
 * Aligns lines to a common time axis, in the format of uPlot: `undefined` where only other lines have a point, and null
 * where a line is interrupted.
 *
 * @param {{label: string, field: string, points: any[]}[]} lines
 * @returns {(number | null | undefined)[][]} seconds, then one column per line
 */
export function columns(lines) {
  const interrupted = lines.map(({ points }) => gapsOf(points.map(timeOf)));
  const ofPoints = lines.flatMap(({ points }) => points.map(timeOf));
  const times = [...new Set([...ofPoints, ...interrupted.flat()])].sort((one, other) => one - other);
  const rows = new Map(times.map((time, index) => [time, index]));
  return [
    times,
    ...lines.map(({ field, points }, line) => {
      /** @type {(number | null | undefined)[]} */
      const column = new Array(times.length).fill(undefined);
      for (const time of interrupted[line]) column[rows.get(time) ?? 0] = null;
      for (const point of points) column[rows.get(timeOf(point)) ?? 0] = numberOf(point, field);
      return column;
    }),
  ];
}

/** Returns a time in each gap between points, which are longer than usual. @param {number[]} times in seconds */
function gapsOf(times) {
  const sorted = [...new Set(times)].sort((one, other) => one - other);
  const intervals = sorted.slice(1).map((time, index) => time - sorted[index]);
  const typical = [...intervals].sort((one, other) => one - other)[intervals.length >> 1];
  return sorted.slice(0, -1).flatMap((time, index) => (intervals[index] > MAX_INTERVALS * typical ? [time + typical] : []));
}

/**
 * Returns the rows of a column whose points have no neighbour, so that no line leads to them.
 *
 * @param {(number | null | undefined)[]} column
 * @returns {number[]}
 */
export function isolated(column) {
  const rows = [...column.keys()].filter((row) => column[row] !== undefined);
  const isNumber = (/** @type {number} */ index) => typeof column[rows[index]] === 'number';
  return rows.filter((_, index) => isNumber(index) && !isNumber(index - 1) && !isNumber(index + 1));
}

/** @param {any} point */
const timeOf = (point) => milliseconds(point.time_unix_nano) / 1000;

/** Returns the newest number of a series. @param {any[]} points @param {string} field */
export function latest(points, field) {
  for (let index = points.length - 1; index >= 0; index -= 1) {
    const value = numberOf(points[index], field);
    if (value !== null) return value;
  }
  return null;
}

/** Names the group of series that lack the attribute `by`. @param {any[]} series @param {string} by @returns {any[]} */
export const withGroupNames = (series, by) =>
  series.map((one) => (Object.hasOwn(one.attributes, by) ? one : { ...one, attributes: { [by]: '(none)' } }));

/**
 * Formats the newest value of a field; a percentile beyond the last bound of its histogram as `> 2.5 s`.
 *
 * @param {any[]} points
 * @param {string} field
 * @param {string} unit
 */
export function newestText(points, field, unit) {
  const point = points.findLast((one) => numberOf(one, field) !== null);
  if (!point) return measured(null, unit);
  return `${point.above?.includes(field) ? '> ' : ''}${measured(numberOf(point, field), unit)}`;
}

/** Returns the last bound of a histogram if percentiles were beyond it. @param {any[]} points @param {string} field */
export function lastBound(points, field) {
  const point = points.findLast(({ above }) => above?.includes(field));
  return point ? numberOf(point, field) : null;
}

/**
 * Returns the least, mean and greatest value of a field.
 *
 * @param {any[]} points
 * @param {string} field
 * @returns {{min: number | null, mean: number | null, max: number | null}}
 */
export function extremes(points, field) {
  const values = points.map((point) => numberOf(point, field)).filter((value) => value !== null);
  if (values.length === 0) return { min: null, mean: null, max: null };
  const sum = values.reduce((total, value) => total + value, 0);
  return {
    min: values.reduce((one, other) => Math.min(one, other)),
    mean: sum / values.length,
    max: values.reduce((one, other) => Math.max(one, other)),
  };
}

/**
 * Returns the series with the largest newest numbers, in descending order.
 *
 * @param {any[]} series
 * @param {string} field
 * @param {number} most
 */
export function largest(series, field, most) {
  return [...series]
    .sort((one, other) => (latest(other.points, field) ?? -Infinity) - (latest(one.points, field) ?? -Infinity))
    .slice(0, most);
}
