// The live log: polls for records newer than the newest known record.
import { useEffect, useState } from './html.js';
import { filterAddress, withFilter } from './filters.js';
import { follow } from './live.js';

/** Maximum number of lines; more would make the page slow. */
export const MAX_LINES = 1000;

const PAGE = 200;
const MAX_NEW = 500;

/** Order of the list: newest time first, then the latest arrival. @param {any} a @param {any} b */
const newestFirst = (a, b) =>
  b.time_unix_nano.length - a.time_unix_nano.length ||
  (a.time_unix_nano === b.time_unix_nano ? b.sequence - a.sequence : a.time_unix_nano < b.time_unix_nano ? 1 : -1);

/**
 * Adds records, which may be older than the shown ones, to the shown records. If records are missing in between, the new
 * records replace the shown records, because a gap would be invisible. Pure.
 *
 * @param {any[]} shown newest first
 * @param {any[]} added newest first
 * @param {boolean} contiguous whether no record is missing in between
 */
export function join(shown, added, contiguous) {
  if (!contiguous) return added;
  const known = new Set(shown.map((log) => log.sequence));
  const all = [...added.filter((log) => !known.has(log.sequence)), ...shown];
  return all.sort(newestFirst).slice(0, MAX_LINES);
}

/**
 * @param {import('./filters.js').Filters} filters
 * @returns {{logs: any[] | null, next: string | null, error: any, append: (logs: any[], next: string | null) => void}}
 */
export function useTail(filters) {
  const address = filterAddress('/logs', withFilter(filters, 'limit', String(PAGE)));
  const [state, setState] = useState({
    address: '',
    logs: /** @type {any[] | null} */ (null),
    next: /** @type {string | null} */ (null),
    error: /** @type {any} */ (null),
  });
  useEffect(() => {
    /** Sequence number of the latest arrival. @type {number | null} */
    let latest = null;
    const nextAddress = () =>
      latest === null
        ? address
        : filterAddress('/logs', { ...filters, after: String(latest), limit: String(MAX_NEW) });
    return follow(
      nextAddress,
      1000,
      (body) => {
        const isFirst = latest === null;
        for (const log of body.logs) latest = Math.max(latest ?? 0, log.sequence);
        setState((before) => {
          if (isFirst || before.address !== address)
            return { address, logs: body.logs, next: body.next, error: null };
          if (body.logs.length === 0) return { ...before, error: null };
          const contiguous = body.next === null;
          const logs = join(before.logs ?? [], body.logs, contiguous);
          return { address, logs, next: contiguous ? before.next : body.next, error: null };
        });
      },
      (error) => setState((before) => ({ ...before, error })),
    );
  }, [address]);
  /** @param {any[]} logs @param {string | null} next */
  const append = (logs, next) =>
    setState((before) => ({ ...before, logs: join(before.logs ?? [], logs, true), next }));
  return { ...state, append };
}
