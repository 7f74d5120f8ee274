// Formats numbers, durations and timestamps. Timestamps are nanoseconds in decimal strings, because JavaScript numbers
// lose precision at this size. Pure functions.

const count0 = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** `12,345` @param {number} value */
export const count = (value) => count0.format(value);

/** `1 span`, `2 spans` @param {number} value @param {string} noun */
export const plural = (value, noun, nouns = `${noun}s`) => `${count(value)} ${value === 1 ? noun : nouns}`;

/** Formats a number with `digits` significant digits; larger numbers are rounded to integers. @param {number} value */
export function short(value, digits = 3) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1e15 || magnitude < 1e-4) return value.toExponential(2);
  if (magnitude >= 10 ** digits) return count0.format(value);
  return String(Number(value.toPrecision(digits)));
}

const DURATIONS = /** @type {const} */ ([
  [1e9, 's'],
  [1e6, 'ms'],
  [1e3, 'µs'],
  [1, 'ns'],
]);

/** `850 ns`, `1.24 ms`, `12.3 s`, `2 min 5 s` @param {number | null | undefined} ns */
export function duration(ns, digits = 3) {
  if (ns === null || ns === undefined) return '–';
  const magnitude = Math.abs(ns);
  const seconds = Math.round(magnitude / 1e9);
  const minutes = Math.round(magnitude / 60e9);
  const sign = ns < 0 ? '-' : '';
  if (seconds >= 3600) return `${sign}${Math.trunc(minutes / 60)} h ${minutes % 60} min`;
  if (magnitude >= 60e9) return `${sign}${Math.trunc(seconds / 60)} min ${seconds % 60} s`;
  for (const [size, unit] of DURATIONS) {
    // Values that would be rounded to 1000 have the next unit.
    if (magnitude >= 0.9995 * size) return `${short(ns / size, digits)} ${unit}`;
  }
  return magnitude === 0 ? '0' : `${short(ns)} ns`;
}

/** `+1.2 ms`, `-3 s` @param {number} ns */
export const offset = (ns) => `${ns < 0 ? '' : '+'}${duration(ns)}`;

/** `0.4/s`, or `3/min` for less than one in ten seconds. @param {number} perSecond */
export function rate(perSecond) {
  if (perSecond > 0 && perSecond < 0.1) return `${short(perSecond * 60, 2)}/min`;
  return `${short(perSecond, 2)}/s`;
}

/** `2.1 %` @param {number} part @param {number} whole */
export function percent(part, whole) {
  if (whole === 0) return '–';
  const value = (100 * part) / whole;
  return `${value === 0 ? '0' : value < 0.1 ? '<0.1' : Number(value.toPrecision(2))} %`;
}

/** Formats a size with binary prefixes. @param {number} value */
export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${short(size)} ${units[unit]}`;
}

/** Converts nanoseconds to milliseconds. @param {string} unixNano */
export const milliseconds = (unixNano) => Number(BigInt(unixNano) / 1_000_000n);

/** Returns the nanoseconds between two timestamps. @param {string} from @param {string} to */
export const between = (from, to) => Number(BigInt(to) - BigInt(from));

const pad = (/** @type {number} */ value, length = 2) => String(value).padStart(length, '0');

/** `14:03:22.123`, in the reader's time zone. @param {string} unixNano */
export function clock(unixNano) {
  const date = new Date(milliseconds(unixNano));
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

/** Returns the time of day, with the date unless it is today. @param {string} unixNano @param {number} [nowMs] */
export function clockOrDate(unixNano, nowMs = Date.now()) {
  const isToday = new Date(milliseconds(unixNano)).toDateString() === new Date(nowMs).toDateString();
  return isToday ? clock(unixNano) : dateTime(unixNano);
}

/** `2026-11-22 14:03:22.123`, in the reader's time zone. @param {string} unixNano */
export function dateTime(unixNano) {
  const date = new Date(milliseconds(unixNano));
  if (Number.isNaN(date.getTime())) return unixNano;
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${clock(unixNano)}`;
}

/** `12 s ago` @param {string} unixNano @param {number} nowMs */
export function ago(unixNano, nowMs) {
  const seconds = Math.max(0, Math.round((nowMs - milliseconds(unixNano)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

const SECONDS_OF = /** @type {Record<string, number>} */ ({
  s: 1,
  ms: 1e-3,
  us: 1e-6,
  µs: 1e-6,
  ns: 1e-9,
  min: 60,
  h: 3600,
});

/** Formats a value in its instrument's unit (UCUM). @param {number | null | undefined} value @param {string} unit */
export function measured(value, unit) {
  if (value === null || value === undefined) return '–';
  if (Object.hasOwn(SECONDS_OF, unit)) return duration(value * SECONDS_OF[unit] * 1e9);
  if (unit === 'By') return bytes(value);
  // An annotation like `{request}` names the counted things, and is omitted from numbers.
  const shown = unit === '1' || unit === '' || unit.startsWith('{') ? '' : ` ${unit}`;
  return `${short(value)}${shown}`;
}

/**
 * Returns the URL of a receiver as services reach it. A receiver on all addresses is reached under the name of the page.
 *
 * @param {string} url
 * @param {string} page the host name of the page
 */
export function receiver(url, page = location.hostname) {
  const reached = new URL(url);
  // `localhost` is more familiar than the loopback address.
  const names = /** @type {Record<string, string>} */ ({ '127.0.0.1': 'localhost', '0.0.0.0': page, '[::]': page });
  reached.hostname = names[reached.hostname] ?? reached.hostname;
  return reached.origin;
}
