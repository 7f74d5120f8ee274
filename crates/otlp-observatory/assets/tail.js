// The live log: polls for records newer than the newest known record.
import { useEffect, useState } from './html.js';
import { filterAddress, withFilter } from './filters.js';
import { follow } from './live.js';

/** Maximum number of lines; more would make the page slow. */
export const MAX_LINES = 1000;

const PAGE = 200;
const MAX_NEW = 500;

/**
 * Adds new records to the shown records. If records are missing in between, the new records replace the shown records,
 * because a gap would be invisible. Pure.
 *
 * @param {any[]} shown newest first
 * @param {any[]} added newest first
 * @param {boolean} contiguous whether no record is missing in between
 */
export function join(shown, added, contiguous) {
  if (!contiguous) return added;
  const newest = shown[0]?.sequence ?? -1;
  return [...added.filter((log) => log.sequence > newest), ...shown].slice(0, MAX_LINES);
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
    /** Sequence number of the newest record. @type {number | null} */
    let newest = null;
    const nextAddress = () =>
      newest === null
        ? address
        : filterAddress('/logs', { ...filters, after: String(newest), limit: String(MAX_NEW) });
    return follow(
      nextAddress,
      1000,
      (body) => {
        const isFirst = newest === null;
        if (body.logs.length > 0) newest = body.logs[0].sequence;
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
    setState((before) => {
      const oldest = before.logs?.at(-1)?.sequence ?? Infinity;
      const older = logs.filter((log) => log.sequence < oldest);
      return { ...before, logs: [...(before.logs ?? []), ...older].slice(0, MAX_LINES), next };
    });
  return { ...state, append };
}
