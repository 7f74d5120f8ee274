// The minimap: the whole trace, with the range that the waterfall shows. A drag selects a range; a click moves it.
import { html, useMemo } from '../html.js';
import { hueOf } from '../hue.js';
import { MAP, lengthOf, minimap, within } from '../timeline.js';
import { extent, useDrag } from './range.js';

/** @typedef {import('../timeline.js').Range} Range */

/** @param {{rows: import('../waterfall.js').Row[], whole: Range, range: Range, onRange: (range: Range) => void}} props */
export function Minimap({ rows, whole, range, onRange }) {
  const paths = useMemo(() => [...minimap(rows, whole)], [rows, whole.to]);
  const moveTo = (/** @type {number} */ at) => {
    const half = lengthOf(range) / 2;
    onRange(within({ from: at - half, to: at + half }, whole));
  };
  const { drag, handlers } = useDrag(whole, (selected) => onRange(within(selected, whole)), moveTo);
  return html`<div class="minimap" data-testid="minimap" title="Drag to zoom" ...${handlers}>
    <svg viewBox="0 0 ${MAP.width} ${MAP.height}" preserveAspectRatio="none" aria-hidden="true">
      ${paths.map(
        ([service, d]) =>
          html`<path
            class=${service === null ? 'minimap-error' : 'minimap-service'}
            style=${{ '--hue': hueOf(service ?? '') }}
            d=${d}
          />`,
      )}
    </svg>
    <span class="minimap-window" style=${extent(drag ?? range, whole)}></span>
  </div>`;
}
