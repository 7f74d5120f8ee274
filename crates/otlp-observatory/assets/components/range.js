// Parts of a time scale: their position, and their selection by dragging over an element that shows the scale.
import { useState } from '../html.js';
import { lengthOf, place } from '../timeline.js';

/** Movement in pixels below which a drag is a click. */
const CLICK = 4;

/**
 * Returns the style of a part of a range; its ends may be in either order.
 *
 * @param {import('../timeline.js').Range} part
 * @param {import('../timeline.js').Range} range
 */
export function extent({ from, to }, range) {
  const { left, width } = place({ start: Math.min(from, to), end: Math.max(from, to) }, range);
  return { left: `${100 * left}%`, width: `${100 * width}%` };
}

/**
 * Returns the range that is being selected and the handlers of the element.
 *
 * @param {import('../timeline.js').Range} shown range that the element shows
 * @param {(range: import('../timeline.js').Range) => void} onSelect
 * @param {(at: number) => void} [onClick]
 */
export function useDrag(shown, onSelect, onClick) {
  const [drag, setDrag] = useState(/** @type {{from: number, to: number, x: number} | null} */ (null));
  const timeAt = (/** @type {PointerEvent} */ event) => {
    const { left, width } = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    return shown.from + lengthOf(shown) * Math.min(1, Math.max(0, (event.clientX - left) / width));
  };
  const handlers = {
    onPointerDown: (/** @type {PointerEvent} */ event) => {
      if (event.button !== 0) return;
      /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
      const at = timeAt(event);
      setDrag({ from: at, to: at, x: event.clientX });
    },
    onPointerMove: (/** @type {PointerEvent} */ event) => drag && setDrag({ ...drag, to: timeAt(event) }),
    onPointerUp: (/** @type {PointerEvent} */ event) => {
      if (!drag) return;
      setDrag(null);
      if (Math.abs(event.clientX - drag.x) >= CLICK) onSelect({ from: drag.from, to: timeAt(event) });
      else onClick?.(drag.from);
    },
    onPointerCancel: () => setDrag(null),
  };
  return { drag, handlers };
}
