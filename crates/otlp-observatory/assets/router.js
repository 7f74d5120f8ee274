// Client-side routing. The path and query of the address determine the page; the fragment, which browsers do not send,
// is the selected span. Plain clicks on internal links change the page without a reload.
import { cell, useCell } from './cell.js';

/** @returns {{path: string, query: string, fragment: string}} */
function read() {
  return { path: location.pathname, query: location.search, fragment: location.hash.slice(1) };
}

const current = cell(read());

/** Whether the previous entry of the history is a page of the observatory. */
let hasPreviousPage = false;

export const useLocation = () => useCell(current);

/**
 * @param {string} address path, query and fragment; a query or fragment alone is relative to the current path
 * @param {{replace?: boolean}} [options] replace the current entry of the history instead of adding one
 */
export function navigate(address, { replace = false } = {}) {
  const before = location.pathname;
  if (replace) {
    history.replaceState(null, '', address);
  } else {
    history.pushState(null, '', address);
    hasPreviousPage = true;
  }
  current.set(read());
  if (location.pathname !== before) scrollTo(0, 0);
}

/** Goes back, or to `fallback` if the previous page is on another site. @param {string} fallback */
export function back(fallback) {
  if (hasPreviousPage) history.back();
  else navigate(fallback);
}

/** Starts handling the history and clicks on links. */
export function start() {
  addEventListener('popstate', () => current.set(read()));
  addEventListener('hashchange', () => current.set(read()));
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null;
    const href = link?.getAttribute('href');
    // Internal addresses begin with a single slash; the browser handles all others.
    if (!href?.startsWith('/') || href.startsWith('//') || link?.hasAttribute('download')) return;
    event.preventDefault();
    navigate(href);
  });
}

/**
 * Returns the path with query parameters. Empty and null values are omitted; an array repeats its name.
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

/** Decodes a segment of an address; null if it is invalid. @param {string} part */
export function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Returns whether an untrusted value is an id that may be used in an address. @param {unknown} id */
export const isId = (id) => typeof id === 'string' && /^[0-9a-f]{16}([0-9a-f]{16})?$/.test(id);

/**
 * Returns the address of a trace, with a span selected if given.
 *
 * @param {string} traceId
 * @param {string | null} [spanId]
 */
export function traceAddress(traceId, spanId) {
  return `/traces/${encodeURIComponent(traceId)}${spanId ? `#${encodeURIComponent(spanId)}` : ''}`;
}
