// The heat map of a histogram: time from left to right, buckets from bottom to top.
import { useCell } from '../cell.js';
import { boundLabels, cellText, cellsOf, summary } from '../heatmap.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { milliseconds } from '../format.js';
import { palette, resolve } from '../theme.js';

const HEIGHT = 260;
const LEFT = 62;
const BOTTOM = 24;

/** Least opacity of a cell with observations. */
const LEAST_SHADE = 0.14;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {any} heatmap
 * @param {string} unit
 * @param {number} width
 */
function draw(canvas, heatmap, unit, width) {
  const pen = canvas.getContext('2d');
  if (!pen) return;
  const scale = devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  pen.scale(scale, scale);
  const { cellWidth, cellHeight } = sizes(heatmap, width);
  pen.fillStyle = resolve('var(--line-0)');
  for (const { column, row, shade } of cellsOf(heatmap)) {
    pen.globalAlpha = LEAST_SHADE + (1 - LEAST_SHADE) * shade;
    const top = HEIGHT - BOTTOM - (row + 1) * cellHeight;
    pen.fillRect(LEFT + column * cellWidth, top, Math.max(1, cellWidth - 1), Math.max(1, cellHeight - 1));
  }
  pen.globalAlpha = 1;
  pen.fillStyle = resolve('var(--muted)');
  pen.font = '11px system-ui, sans-serif';
  pen.textAlign = 'right';
  for (const { row, text } of boundLabels(heatmap, unit)) pen.fillText(text, LEFT - 6, HEIGHT - BOTTOM - row * cellHeight);
  const { columns } = heatmap;
  const timeOf = (/** @type {number} */ column) =>
    new Date(milliseconds(columns[column].time_unix_nano)).toLocaleTimeString('en-GB');
  pen.textAlign = 'left';
  pen.fillText(timeOf(0), LEFT, HEIGHT - 8);
  pen.textAlign = 'right';
  if (columns.length > 1) pen.fillText(timeOf(columns.length - 1), width - 8, HEIGHT - 8);
}

/** @param {any} heatmap @param {number} width */
const sizes = (heatmap, width) => ({
  cellWidth: (width - LEFT - 8) / heatmap.columns.length,
  cellHeight: (HEIGHT - BOTTOM - 8) / heatmap.buckets.length,
});

/** @param {{heatmap: any, unit: string, label: string}} props */
export function Heatmap({ heatmap, unit, label }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [width, setWidth] = useState(0);
  const [hover, setHover] = useState(/** @type {{text: string, left: number} | null} */ (null));
  const colors = useCell(palette);
  const isEmpty = heatmap.buckets.length === 0;
  useEffect(() => {
    const holder = canvas.current?.parentElement;
    if (!holder) return undefined;
    const observer = new ResizeObserver(([{ contentRect }]) => setWidth(Math.floor(contentRect.width)));
    observer.observe(holder);
    return () => observer.disconnect();
  }, [isEmpty]);
  useEffect(() => {
    if (canvas.current && width > 0) draw(canvas.current, heatmap, unit, width);
  }, [heatmap, unit, width, colors]);
  if (isEmpty) return html`<p class="muted pad">No buckets: no observations, no bounds, or series with different bounds.</p>`;

  const look = (/** @type {MouseEvent} */ event) => {
    const { cellWidth, cellHeight } = sizes(heatmap, width);
    const column = Math.floor((event.offsetX - LEFT) / cellWidth);
    const row = Math.floor((HEIGHT - BOTTOM - event.offsetY) / cellHeight);
    const isCell = column in heatmap.columns && row in heatmap.buckets;
    setHover(isCell ? { text: cellText(heatmap, column, row, unit), left: event.offsetX } : null);
  };
  const right = hover !== null && hover.left > width / 2;
  return html`<div class="heatmap" data-testid="heatmap">
    <canvas
      ref=${canvas}
      role="img"
      aria-label=${`${label}: ${summary(heatmap, unit)}`}
      onMouseMove=${look}
      onMouseLeave=${() => setHover(null)}
    ></canvas>
    ${
      hover &&
      html`<div
        class="chart-values"
        aria-hidden="true"
        style=${right ? { right: `${width - hover.left + 12}px` } : { left: `${hover.left + 12}px` }}
      >${hover.text}</div>`
    }
  </div>`;
}
