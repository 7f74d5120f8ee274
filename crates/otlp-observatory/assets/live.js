// Keeps pages up to date by polling: every second while the page is visible and not paused, with a back-off while the
// server is unreachable. `paused` and `connection` are shared by the whole page.
import { Refused, get } from './api.js';
import { cell } from './cell.js';
import { useEffect, useState } from './html.js';

const MAX_BACK_OFF_MS = 15_000;

/** Whether the user has paused polling. */
export const paused = cell(false);

/** Error of the connection; null while requests succeed. */
export const connection = cell(/** @type {string | null} */ (null));

/**
 * Errors of the pollers that currently fail; success of another poller does not hide them.
 *
 * @type {Map<AbortSignal, string>}
 */
const failing = new Map();

/** @param {AbortSignal} poller @param {string | null} reason */
function report(poller, reason) {
  if (reason === null) failing.delete(poller);
  else failing.set(poller, reason);
  connection.set(failing.values().next().value ?? null);
}

/** Returns the delay after consecutive failures, in milliseconds. @param {number} failures @param {number} every */
export function backOff(failures, every) {
  return failures === 0 ? every : Math.min(MAX_BACK_OFF_MS, every * 2 ** failures);
}

/** Resolves after `ms`, or at once when `signal` is aborted. @param {number} ms @param {AbortSignal} signal */
function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve(undefined);
    }
    signal.addEventListener('abort', done);
  });
}

/** Resolves when the page is visible and not paused, or when `signal` is aborted. @param {AbortSignal} signal */
function untilActive(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (!signal.aborted && (document.hidden || paused.get())) return;
      document.removeEventListener('visibilitychange', look);
      signal.removeEventListener('abort', look);
      unsubscribe();
      resolve(undefined);
    };
    const unsubscribe = paused.subscribe(look);
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look);
    look();
  });
}

/**
 * Polls `address()` until the returned function is called.
 *
 * @param {() => string} may return a different address for each request
 * @param {number} every milliseconds between requests
 * @param {(body: any) => void} onAnswer called with changed responses
 * @param {(refusal: Refused) => void} onRefusal
 * @returns {() => void}
 */
export function follow(address, every, onAnswer, onRefusal) {
  const stop = new AbortController();
  const { signal } = stop;
  (async () => {
    let previous = '';
    /** @type {string | null} */
    let etag = null;
    let failures = 0;
    while (!signal.aborted) {
      try {
        const current = address();
        if (current !== previous) etag = null;
        previous = current;
        const answer = await get(current, { etag, signal });
        failures = 0;
        report(signal, null);
        if (answer) {
          etag = answer.etag;
          if (!signal.aborted) onAnswer(answer.body);
        }
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        if (error instanceof Refused) {
          report(signal, null);
          onRefusal(error);
          // A missing resource may appear later; other refusals are permanent.
          if (error.status !== 404) return;
        } else {
          report(signal, error instanceof Error ? error.message : String(error));
        }
      }
      await sleep(backOff(failures, every), signal);
      await untilActive(signal);
    }
  })();
  return () => {
    stop.abort();
    report(signal, null);
  };
}

/**
 * Returns the newest JSON of an address. While a new address loads, the JSON of the old one is returned as `stale`.
 *
 * @param {string | null} address null requests nothing
 * @param {{every?: number}} [options]
 * @returns {{body: any, refusal: Refused | null, stale: boolean}}
 */
export function useLive(address, { every = 1000 } = {}) {
  const [state, setState] = useState(
    /** @type {{address: string | null, body: any, refusal: Refused | null}} */ ({
      address: null,
      body: null,
      refusal: null,
    }),
  );
  useEffect(() => {
    if (address === null) return undefined;
    return follow(
      () => address,
      every,
      (body) => setState({ address, body, refusal: null }),
      (refusal) => setState((before) => ({ address, body: before.address === address ? before.body : null, refusal })),
    );
  }, [address, every]);
  return { body: state.body, refusal: state.refusal, stale: state.address !== address };
}
