// The mark: a moment that the user set, from which problems are new, and before and after which operations are compared.
import { cell } from './cell.js';

const KEY = 'observatory-mark';

/** Returns the stored mark; empty if there is none or the browser does not allow storage. */
function stored() {
  try {
    const text = localStorage.getItem(KEY) ?? '';
    return /^[0-9]{16,20}$/.test(text) ? text : '';
  } catch {
    return '';
  }
}

/** Nanoseconds since 1970; empty without a mark. */
export const mark = cell(stored());

/** Sets the mark to now and returns it. */
export function markNow() {
  const now = String(BigInt(Date.now()) * 1_000_000n);
  mark.set(now);
  try {
    localStorage.setItem(KEY, now);
  } catch {
    // Without storage, the mark lasts until the page is closed.
  }
  return now;
}
