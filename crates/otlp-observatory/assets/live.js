// Keeps what is shown up to date: asks an address again every second, only while the page is visible and not paused,
// and ever less often while nobody answers. The whole page shares one "paused" and one "connection".
import { Refused, get } from './api.js';
import { cell } from './cell.js';
import { useEffect, useState } from './html.js';

const LONGEST_WAIT_MS = 15_000;

/** Whether the user has stopped the clock. */
export const paused = cell(false);

/** Null while answers come, else the reason why none do. */
export const connection = cell(/** @type {string | null} */ (null));

/** Why those who follow an address get no answer. One that succeeds must not hide another that fails. @type {Map<AbortSignal, string>} */
const failing = new Map();

/** @param {AbortSignal} follower @param {string | null} reason */
function report(follower, reason) {
  if (reason === null) failing.delete(follower);
  else failing.set(follower, reason);
  connection.set(failing.values().next().value ?? null);
}

/** How long to wait after `failures` failures in a row. @param {number} failures @param {number} every */
export function backOff(failures, every) {
  return failures === 0 ? every : Math.min(LONGEST_WAIT_MS, every * 2 ** failures);
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

/** Resolves as soon as the page is visible and not paused. @param {AbortSignal} signal */
function awake(signal) {
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
 * Asks what `address()` says again and again, until the function that is returned is called.
 *
 * @param {() => string} address may change between two questions, as that of a tail does
 * @param {number} every milliseconds between two questions
 * @param {(body: any) => void} onAnswer called for answers that are new
 * @param {(refusal: Refused) => void} onRefusal
 * @returns {() => void}
 */
export function follow(address, every, onAnswer, onRefusal) {
  const stop = new AbortController();
  const { signal } = stop;
  (async () => {
    let asked = '';
    /** @type {string | null} */
    let etag = null;
    let failures = 0;
    while (!signal.aborted) {
      try {
        const now = address();
        if (now !== asked) etag = null;
        asked = now;
        const answer = await get(asked, { etag, signal });
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
          // What is not there may come; what was not understood stays so.
          if (error.status !== 404) return;
        } else {
          report(signal, error instanceof Error ? error.message : String(error));
        }
      }
      await sleep(backOff(failures, every), signal);
      await awake(signal);
    }
  })();
  return () => {
    stop.abort();
    report(signal, null);
  };
}

/**
 * The newest JSON of an address. While a new address is on its way the old one's JSON stays, as `stale`.
 *
 * @param {string | null} address null asks nothing
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
