// A value that several components share. Components that read it with `useCell` are rendered again when it changes.
import { useEffect, useState } from './html.js';

/**
 * @template T
 * @param {T} value
 */
export function cell(value) {
  /** @type {Set<(value: T) => void>} */
  const listeners = new Set();
  return {
    get: () => value,
    /** @param {T} next */
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    /**
     * @param {(value: T) => void} listener
     * @returns {() => void} unsubscribes
     */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * @template T
 * @param {ReturnType<typeof cell<T>>} source
 * @returns {T}
 */
export function useCell(source) {
  const [value, setValue] = useState(source.get());
  useEffect(() => {
    // The value may have changed between rendering and this effect.
    setValue(source.get());
    return source.subscribe(setValue);
  }, [source]);
  return value;
}
