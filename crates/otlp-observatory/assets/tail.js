// The newest log records, kept up to date by asking only for what came since the newest that is known.
import { useEffect, useState } from './html.js';
import { filterAddress, withFilter } from './filters.js';
import { follow } from './live.js';

/** More lines than these make a page that stutters. */
export const MOST_LINES = 1000;

const PAGE = 200;
const MOST_NEW = 500;

/**
 * What is shown after an answer came. One that does not reach back to what is shown takes its place, rather than
 * leaving a gap that nobody sees. Pure.
 *
 * @param {any[]} shown newest first
 * @param {any[]} came newest first
 * @param {boolean} reaches whether nothing lies between
 */
export function join(shown, came, reaches) {
  if (!reaches) return came;
  const newest = shown[0]?.sequence ?? -1;
  return [...came.filter((log) => log.sequence > newest), ...shown].slice(0, MOST_LINES);
}

/**
 * @param {import('./filters.js').Filters} filters
 * @returns {{logs: any[] | null, next: string | null, refusal: any, append: (logs: any[], next: string | null) => void}}
 */
export function useTail(filters) {
  const address = filterAddress('/logs', withFilter(filters, 'limit', String(PAGE)));
  const [state, setState] = useState({
    address: '',
    logs: /** @type {any[] | null} */ (null),
    next: /** @type {string | null} */ (null),
    refusal: /** @type {any} */ (null),
  });
  useEffect(() => {
    /** The sequence of the newest record. @type {number | null} */
    let newest = null;
    const question = () =>
      newest === null
        ? address
        : filterAddress('/logs', { ...filters, after: String(newest), limit: String(MOST_NEW) });
    return follow(
      question,
      1000,
      (body) => {
        const isFirst = newest === null;
        if (body.logs.length > 0) newest = body.logs[0].sequence;
        setState((before) => {
          if (isFirst || before.address !== address)
            return { address, logs: body.logs, next: body.next, refusal: null };
          if (body.logs.length === 0) return { ...before, refusal: null };
          const reaches = body.next === null;
          const logs = join(before.logs ?? [], body.logs, reaches);
          return { address, logs, next: reaches ? before.next : body.next, refusal: null };
        });
      },
      (refusal) => setState((before) => ({ ...before, refusal })),
    );
  }, [address]);
  /** @param {any[]} logs @param {string | null} next */
  const append = (logs, next) =>
    setState((before) => {
      const oldest = before.logs?.at(-1)?.sequence ?? Infinity;
      const older = logs.filter((log) => log.sequence < oldest);
      return { ...before, logs: [...(before.logs ?? []), ...older].slice(0, MOST_LINES), next };
    });
  return { ...state, append };
}
