// Light or dark: the system's choice unless the user made one, which is remembered. Charts are drawn on canvases, which
// know no CSS: they ask here for the present value of a colour and are told when it changes.
import { cell } from './cell.js';

/** @typedef {'system' | 'light' | 'dark'} Theme */

const chosen = document.documentElement.dataset.theme;

/** What the user chose. */
export const theme = cell(/** @type {Theme} */ (chosen === 'light' || chosen === 'dark' ? chosen : 'system'));

/** Grows whenever colours changed. */
export const palette = cell(0);

const changed = () => palette.set(palette.get() + 1);

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);

/** @param {Theme} next */
export function choose(next) {
  if (next === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === 'system') localStorage.removeItem('theme');
    else localStorage.setItem('theme', next);
  } catch {
    // Storage can be forbidden; the choice holds for this page then.
  }
  theme.set(next);
  changed();
}

/** @type {HTMLElement | null} */
let probe = null;

/** What a CSS colour, as `var(--accent)`, comes to in the present theme. @param {string} color */
export function resolve(color) {
  if (!probe) {
    probe = document.createElement('span');
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = '';
  probe.style.color = color;
  return getComputedStyle(probe).color;
}
