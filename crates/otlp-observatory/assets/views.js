// Saved views: named addresses of this browser. Other people get a view by its address.
import { cell } from './cell.js';

const KEY = 'observatory-views';
const MAX_VIEWS = 100;

/** @typedef {{name: string, address: string}} View */

/** Returns the valid views of a stored text. @param {string | null} text @returns {View[]} */
export function readViews(text) {
  try {
    const views = JSON.parse(text ?? '[]');
    const isView = (/** @type {any} */ view) =>
      typeof view?.name === 'string' && typeof view?.address === 'string' && /^\/(?!\/)/.test(view.address);
    return Array.isArray(views) ? views.filter(isView).slice(0, MAX_VIEWS) : [];
  } catch {
    return [];
  }
}

/** Returns the views with one added, or replaced if its name is known. @param {View[]} views @param {View} view */
export const withView = (views, view) =>
  [...views.filter(({ name }) => name !== view.name), view]
    .sort((a, b) => a.name.localeCompare(b.name))
    .slice(0, MAX_VIEWS);

/** Returns the views stored in this browser; none if it does not allow storage. */
function stored() {
  try {
    return readViews(localStorage.getItem(KEY));
  } catch {
    return [];
  }
}

export const views = cell(stored());

/** @param {View[]} next */
export function saveViews(next) {
  views.set(next);
  try {
    localStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    // Without storage, the views last until the page is closed.
  }
}
