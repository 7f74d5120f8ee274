// The theme: the system's, or the user's stored choice. Canvases do not support CSS variables, so charts resolve
// colours here and redraw when the theme changes.
import { cell } from './cell.js';

/** @typedef {'system' | 'light' | 'dark'} Theme */

const chosen = document.documentElement.dataset.theme;

/** The user's choice. */
export const theme = cell(/** @type {Theme} */ (chosen === 'light' || chosen === 'dark' ? chosen : 'system'));

/** Number that increases with every change of colours. */
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
    // Without storage, the choice is lost when the page is closed.
  }
  theme.set(next);
  changed();
}

/** @type {HTMLElement | null} */
let probe = null;

/** Resolves a CSS colour like `var(--accent)` in the current theme. @param {string} color */
export function resolve(color) {
  if (!probe) {
    probe = document.createElement('span');
    probe.hidden = true;
    // In forced colours, the lines of a chart would all have the colour of text.
    probe.style.setProperty('forced-color-adjust', 'none');
    document.body.append(probe);
  }
  probe.style.color = '';
  probe.style.color = color;
  return getComputedStyle(probe).color;
}
