// Points of a metric as the columns that a chart draws. Pure.
import { milliseconds } from './format.js';
import { hashOf } from './hash.js';
import { textOf } from './text.js';

/** What can be drawn of an instrument's points, the most telling first. @type {Record<string, string[]>} */
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

/** The one number of a metric's points that says most. @param {any} metric */
export function headline(metric) {
  if (isHistogram(metric.type)) return 'p95';
  if (metric.type !== 'summary') return fieldsOf(metric.type)[0];
  const quantiles = Object.keys(metric.series[0]?.points.at(-1)?.quantiles ?? {});
  return quantiles.length > 0 ? `quantiles:${quantiles[quantiles.length - 1]}` : 'count';
}

/** Attributes in one line; the same attributes always give the same. @param {Record<string, unknown>} attributes */
export function labelOf(attributes) {
  const parts = Object.entries(attributes ?? {}).sort(([one], [other]) => (one < other ? -1 : 1));
  return parts.map(([name, value]) => `${name}=${textOf(value)}`).join(', ') || 'all';
}

/** All that a series is known by: two processes may report the same attributes. @param {any} series */
const identityOf = (series) => ({ ...series.resource, ...series.attributes });

/** A short name of a series that stays the same, for addresses. @param {any} series */
export const keyOf = (series) => hashOf(labelOf(identityOf(series))).toString(36);

/**
 * What tells each series from the others: the label of what differs among them; and what they have in common.
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

/** A point's number. `quantiles:0.5` is that of a summary. @param {any} point @param {string} field @returns {number | null} */
export function numberOf(point, field) {
  const value = field.startsWith('quantiles:') ? point.quantiles?.[field.slice(10)] : point[field];
  // Integers beyond 2^53 come as text; a chart can do with the nearest number.
  const number = typeof value === 'string' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : null;
}

/**
 * Lines over one common scale of time, as uPlot wants them.
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

/** The newest number of a series that is one. @param {any[]} points @param {string} field */
export function latest(points, field) {
  for (let index = points.length - 1; index >= 0; index -= 1) {
    const value = numberOf(points[index], field);
    if (value !== null) return value;
  }
  return null;
}

/** The series whose newest number is the largest, first. @param {any[]} series @param {string} field @param {number} most */
export function largest(series, field, most) {
  return [...series]
    .sort((one, other) => (latest(other.points, field) ?? -Infinity) - (latest(one.points, field) ?? -Infinity))
    .slice(0, most);
}
