// Converts the points of metrics to columns for charts. Pure functions.
import { milliseconds } from './format.js';
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
  if (isHistogram(metric.type)) return 'p95';
  if (metric.type !== 'summary') return fieldsOf(metric.type)[0];
  const quantiles = Object.keys(metric.series[0]?.points.at(-1)?.quantiles ?? {});
  return quantiles.length > 0 ? `quantiles:${quantiles[quantiles.length - 1]}` : 'count';
}

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

/**
 * Aligns lines to a common time axis, in the format of uPlot.
 *
 * @param {{label: string, field: string, points: any[]}[]} lines
 * @returns {(number | null)[][]} seconds, then one column per line
 */
export function columns(lines) {
  /** @type {Map<number, number>} */
  const rows = new Map();
  const times = [...new Set(lines.flatMap(({ points }) => points.map(timeOf)))].sort((one, other) => one - other);
  times.forEach((time, index) => rows.set(time, index));
  return [
    times,
    ...lines.map(({ field, points }) => {
      /** @type {(number | null)[]} */
      const column = new Array(times.length).fill(null);
      for (const point of points) column[rows.get(timeOf(point)) ?? 0] = numberOf(point, field);
      return column;
    }),
  ];
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
