// Keeps pages up to date by polling: every second while the page is visible and not paused, with a back-off while the
// server is unreachable. `paused` and `connection` are shared by the whole page.
import { Rejected, get } from './api.js';
import { cell } from './cell.js';
import { useEffect, useState } from './html.js';

const MAX_BACK_OFF_MS = 15_000;

/** Whether the user has paused polling. */
export const paused = cell(false);

/** Error of the connection; null while requests succeed. */
export const connection = cell(/** @type {string | null} */ (null));

/**
 * Errors of the pollers that are failing. An error stays visible when another poller succeeds.
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

/** Resolves after `ms`, or when `signal` is aborted. @param {number} ms @param {AbortSignal} signal */
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
 * @param {() => string} address may return a different address for each request
 * @param {number} every milliseconds between requests
 * @param {(body: any) => void} onChange called with changed responses
 * @param {(error: Rejected) => void} onError
 * @returns {() => void}
 */
export function follow(address, every, onChange, onError) {
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
        const response = await get(current, { etag, signal });
        failures = 0;
        report(signal, null);
        if (response) {
          etag = response.etag;
          if (!signal.aborted) onChange(response.body);
        }
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        if (error instanceof Rejected) {
          report(signal, null);
          onError(error);
          // A missing resource may appear later; other errors are permanent.
          if (error.status !== 404) return;
        } else {
          report(signal, error instanceof Error ? error.message : String(error));
        }
      }
      // The jitter keeps several tabs from retrying in step.
      const jitter = failures === 0 ? 1 : 0.5 + Math.random() / 2;
      await sleep(jitter * backOff(failures, every), signal);
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
 * @param {string | null} address null to request nothing
 * @param {{every?: number}} [options]
 * @returns {{body: any, error: Rejected | null, stale: boolean}}
 */
export function useLive(address, { every = 1000 } = {}) {
  const [state, setState] = useState(
    /** @type {{address: string | null, body: any, error: Rejected | null}} */ ({
      address: null,
      body: null,
      error: null,
    }),
  );
  useEffect(() => {
    if (address === null) return undefined;
    return follow(
      () => address,
      every,
      (body) => setState({ address, body, error: null }),
      (error) => setState((before) => ({ address, body: before.address === address ? before.body : null, error })),
    );
  }, [address, every]);
  return { body: state.body, error: state.error, stale: state.address !== address };
}
