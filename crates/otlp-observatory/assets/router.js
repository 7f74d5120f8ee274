// The address is the state: what a page shows is in its path and query, and the selected span in its fragment, which
// browsers keep to themselves. Links are real links; a plain click on one of ours changes the page without a reload.
import { cell, useCell } from './cell.js';

/** @returns {{path: string, query: string, fragment: string}} */
function read() {
  return { path: location.pathname, query: location.search, fragment: location.hash.slice(1) };
}

const here = cell(read());

/** Whether something of ours is behind the present entry of the history. */
let cameFromInside = false;

export const useLocation = () => useCell(here);

/**
 * @param {string} address path, query and fragment; a query or fragment alone is relative to the present path
 * @param {{replace?: boolean}} [options] replace the present entry of the history rather than adding one
 */
export function navigate(address, { replace = false } = {}) {
  const before = location.pathname;
  if (replace) {
    history.replaceState(null, '', address);
  } else {
    history.pushState(null, '', address);
    cameFromInside = true;
  }
  here.set(read());
  if (location.pathname !== before) scrollTo(0, 0);
}

/** Back to where the user came from, or to `fallback` when that was not one of our pages. @param {string} fallback */
export function back(fallback) {
  if (cameFromInside) history.back();
  else navigate(fallback);
}

/** Starts to follow the address bar and the clicks on links. */
export function start() {
  addEventListener('popstate', () => here.set(read()));
  addEventListener('hashchange', () => here.set(read()));
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    const href = link?.getAttribute('href');
    // Only addresses of ours are written with a leading slash; assets and fragments are the browser's business.
    if (!href?.startsWith('/') || href.startsWith('//') || link?.hasAttribute('download')) return;
    event.preventDefault();
    navigate(href);
  });
}

/**
 * The path with `changes` made to a query; empty and null values are left out, arrays repeat their name.
 *
 * @param {string} path
 * @param {Record<string, string | string[] | null | undefined>} parameters
 */
export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one) query.append(name, one);
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** What an encoded part of an address says; null when it cannot be decoded. @param {string} part */
export function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Ids come from others; an address is only made of what is one. @param {unknown} id */
export const isId = (id) => typeof id === 'string' && /^[0-9a-f]{16}([0-9a-f]{16})?$/.test(id);

/**
 * The address of a trace, with a span selected when there is one.
 *
 * @param {string} traceId
 * @param {string | null} [spanId]
 */
export function traceAddress(traceId, spanId) {
  return `/traces/${encodeURIComponent(traceId)}${spanId ? `#${encodeURIComponent(spanId)}` : ''}`;
}
