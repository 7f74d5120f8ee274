// Keyboard shortcuts. Components register bindings; the innermost component takes precedence. Bindings are inactive while
// the user types, presses a modifier key, or has a dialog open.
import { useEffect, useRef } from './html.js';

/** @typedef {Record<string, [description: string, run: (event: KeyboardEvent) => void | false]>} Bindings */

/** @type {{current: Bindings}[]} */
const layers = [];

/** Returns the active bindings, innermost first. @returns {[key: string, description: string][]} */
export function bindings() {
  const seen = new Map();
  for (const layer of [...layers].reverse()) {
    for (const [key, [description]] of Object.entries(layer.current)) {
      if (description && !seen.has(key)) seen.set(key, description);
    }
  }
  return [...seen];
}

/** Binds keys while the component is mounted. A binding that returns false passes the key to the next component. @param {Bindings} keys */
export function useKeys(keys) {
  const layer = useRef(keys);
  layer.current = keys;
  useEffect(() => {
    layers.push(layer);
    return () => {
      layers.splice(layers.indexOf(layer), 1);
    };
  }, []);
}

/** Starts handling key events. */
export function start() {
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]')) return;
    if (event.target instanceof HTMLElement && event.target.matches('input, select, textarea')) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    for (const layer of [...layers].reverse()) {
      const binding = layer.current[event.key];
      if (binding && binding[1](event) !== false) {
        event.preventDefault();
        return;
      }
    }
  });
}

/**
 * Moves the focus between the rows (`[data-row]`) of a list: j and k always, arrow keys only while a row is focused.
 *
 * @param {{current: HTMLElement | null}} list
 */
export function useRowKeys(list) {
  const move =
    (/** @type {number} */ step, onlyFromRow = false) =>
    () => {
      const rows = /** @type {HTMLElement[]} */ ([...(list.current?.querySelectorAll('[data-row]') ?? [])]);
      const at = rows.findIndex((row) => row === document.activeElement);
      if (rows.length === 0 || (onlyFromRow && at < 0)) return false;
      const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: 'nearest' });
      return undefined;
    };
  useKeys({
    j: ['next row', move(1)],
    k: ['previous row', move(-1)],
    ArrowDown: ['', move(1, true)],
    ArrowUp: ['', move(-1, true)],
    Enter: ['open the row', () => false],
  });
}
