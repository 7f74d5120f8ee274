// A line chart over time, drawn by uPlot, with exemplars as links on top of it. Dragging enlarges a part of it.
import uPlot from '../vendor/uPlot.esm.js';
import { html, useEffect, useMemo, useRef, useState } from '../html.js';
import { useCell } from '../cell.js';
import { measured, milliseconds, dateTime } from '../format.js';
import { isId, navigate, traceAddress } from '../router.js';
import { isolated } from '../series.js';
import { plain } from '../text.js';
import { palette, resolve } from '../theme.js';

/** Number of line colours in css/tokens.css. */
const COLORS = 8;
const MAX_EXEMPLARS = 200;

/** Minimum length of the time axis, in seconds. */
const MIN_RANGE_S = 30;
const FONT = '11px system-ui, sans-serif';

/** Steps of the time axis, in seconds; uPlot's defaults lack some steps for narrow screens. */
const TIME_STEPS = [
  1,
  2,
  5,
  10,
  15,
  30,
  ...[1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => 60 * minutes),
];

/** Steps of an axis of bytes. */
const POWERS_OF_TWO = Array.from({ length: 50 }, (_, power) => 2 ** power);

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {string} [color] a CSS colour; by default the next one of the palette
 * @property {boolean} [fill]
 * @property {number | null} [bound] value that stands for all greater ones
 */

/** @param {string} value */
const variable = (value) => () => resolve(`var(--${value})`);

/**
 * @param {Line[]} lines
 * @param {string} unit
 * @param {number} height
 * @param {boolean} legend
 * @param {() => any[]} exemplars
 * @param {() => [number, number] | null} zoom the enlarged period, in seconds
 * @param {Record<string, ((chart: any) => void)[]>} hooks
 */
function optionsOf(lines, unit, height, legend, exemplars, zoom, hooks) {
  const axis = {
    stroke: variable('muted'),
    font: FONT,
    grid: { stroke: variable('grid'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: 320,
    height,
    legend: { show: legend },
    padding: [8, 26, 0, 0],
    cursor: { y: false, points: { size: 6 }, drag: { x: true, y: false } },
    scales: {
      x: {
        range: (/** @type {any} */ _, /** @type {number} */ min, /** @type {number} */ max) =>
          zoom() ?? timeRange(min, max, exemplars()),
      },
      y: { range: (/** @type {any} */ _, /** @type {number} */ min, /** @type {number} */ max) => rangeOf(min, max) },
    },
    axes: [
      {
        ...axis,
        size: 26,
        space: 58,
        incrs: TIME_STEPS,
        values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => timesOf(ticks),
      },
      {
        ...axis,
        size: 62,
        space: 32,
        incrs: unit === 'By' ? POWERS_OF_TWO : undefined,
        values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => measured(tick, unit)),
      },
    ],
    series: [
      {
        label: 'at',
        value: (/** @type {any} */ it, /** @type {number | null} */ time) => timeOf(time ?? it.data[0].at(-1)),
      },
      ...lines.map(({ label, color, fill, bound }, index) => {
        const stroke = color ?? `var(--line-${index % COLORS})`;
        return {
          label: plain(label),
          stroke: () => resolve(stroke),
          width: 1.5,
          points: { size: 4, filter: unlessAll },
          fill: fill ? () => resolve(`color-mix(in oklab, ${stroke} 14%, transparent)`) : undefined,
          // Without a cursor, the legend shows the newest value.
          value: (
            /** @type {any} */ it,
            /** @type {number | null} */ value,
            /** @type {number} */ column,
            /** @type {number | null} */ row,
          ) => valueText(row === null ? newest(it.data[column]) : value, unit, bound),
        };
      }),
    ],
    hooks,
  };
}

/** Formats a time like `14:03:22`. @param {number | undefined} seconds since 1970 */
const timeOf = (seconds) => (seconds === undefined ? '' : new Date(seconds * 1000).toLocaleTimeString('en-GB'));

/** Formats the times of an axis, with seconds if minutes are ambiguous. @param {number[]} ticks */
function timesOf(ticks) {
  const whole = ticks.every((tick) => tick % 60 === 0);
  return ticks.map((tick) => timeOf(tick).slice(0, whole ? 5 : 8));
}

/** @param {number | null} value @param {string} unit @param {number | null} [bound] */
const valueText = (value, unit, bound) => `${value !== null && value === bound ? '> ' : ''}${measured(value, unit)}`;

/** @param {(number | null | undefined)[]} column */
const newest = (column) => column.findLast((value) => typeof value === 'number') ?? null;

/**
 * Returns the range of the time axis: from the first point to the last, extended to a minimum length and to the
 * exemplars, which are older than their point.
 *
 * @param {number | null} min
 * @param {number | null} max
 * @param {any[]} exemplars
 * @returns {[number | null, number | null]}
 */
function timeRange(min, max, exemplars) {
  if (min === null || max === null) return [min, max];
  const first = Math.min(min, ...exemplars.map((exemplar) => milliseconds(exemplar.time_unix_nano) / 1000));
  return [Math.min(first, max - MIN_RANGE_S), max];
}

/**
 * Returns the points that are drawn as dots, because no line leads to them.
 *
 * @param {any} chart
 * @param {number} column
 * @param {boolean} all whether uPlot draws all points
 */
const unlessAll = (chart, column, all) => (all ? null : isolated(chart.data[column]));

/**
 * Shows the values at the pointer in a box beside it.
 *
 * @param {any} chart
 * @param {HTMLElement} box
 * @param {Line[]} lines
 * @param {string} unit
 */
function showValues(chart, box, lines, unit) {
  const { idx, idxs, left } = chart.cursor;
  const shown = idx !== null && idx !== undefined && left >= 0;
  box.hidden = !shown;
  if (!shown) return;
  const rows = chart.series.slice(1).flatMap((/** @type {any} */ series, /** @type {number} */ index) => {
    const value = chart.data[index + 1][idxs[index + 1]];
    if (typeof value !== 'number') return [];
    const row = document.createElement('div');
    row.append(document.createElement('i'), `${series.label || 'value'} `, document.createElement('b'));
    /** @type {HTMLElement} */ (row.firstElementChild).style.background = series.stroke(chart, index + 1);
    /** @type {HTMLElement} */ (row.lastElementChild).textContent = valueText(value, unit, lines[index].bound);
    return [row];
  });
  const time = document.createElement('div');
  time.textContent = timeOf(chart.data[0][idx]);
  box.replaceChildren(time, ...rows);
  const isRight = left > chart.over.clientWidth / 2;
  box.style.left = isRight ? '' : `${left + 12}px`;
  box.style.right = isRight ? `${chart.over.clientWidth - left + 12}px` : '';
}

/**
 * Returns the range of the value axis: it contains zero, has a margin, and is not empty for constant values.
 *
 * @param {number | null} min
 * @param {number | null} max
 * @returns {[number, number]}
 */
function rangeOf(min, max) {
  const low = Math.min(0, min ?? 0);
  const high = Math.max(0, max ?? 0);
  return low === high ? [0, 1] : [low * 1.1, high * 1.1];
}

/**
 * Places exemplars at their time and value.
 *
 * @param {any} chart
 * @param {any[]} exemplars
 * @param {string} unit
 */
function placeExemplars(chart, exemplars, unit) {
  for (const dot of chart.over.querySelectorAll('.exemplar')) dot.remove();
  for (const exemplar of exemplars) {
    if (!isId(exemplar.trace_id)) continue;
    const left = chart.valToPos(milliseconds(exemplar.time_unix_nano) / 1000, 'x');
    const top = chart.valToPos(exemplar.value, 'y');
    if (!(left >= 0 && left <= chart.over.clientWidth)) continue;
    const dot = document.createElement('a');
    dot.className = 'exemplar';
    dot.href = traceAddress(exemplar.trace_id, exemplar.span_id);
    dot.dataset.testid = 'exemplar';
    dot.title = `${measured(exemplar.value, unit)} at ${dateTime(exemplar.time_unix_nano)}: open its trace`;
    dot.setAttribute('aria-label', dot.title);
    dot.style.left = `${left}px`;
    // An exemplar above the scale is drawn as a hollow dot at the edge.
    dot.classList.toggle('is-beyond', top < 0);
    dot.style.top = `${Math.min(chart.over.clientHeight, Math.max(0, top))}px`;
    chart.over.append(dot);
  }
}

/**
 * @param {object} props
 * @param {Line[]} props.lines
 * @param {(number | null | undefined)[][]} props.data seconds, then one column per line
 * @param {string} props.unit as UCUM
 * @param {string} props.label accessible description
 * @param {number} [props.height]
 * @param {boolean} [props.legend]
 * @param {any[]} [props.exemplars]
 */
export function Chart({ lines, data, unit, label, height = 200, legend = true, exemplars = [] }) {
  const holder = useRef(/** @type {HTMLElement | null} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const dots = useRef(exemplars);
  dots.current = useMemo(() => exemplars.slice(-MAX_EXEMPLARS), [exemplars]);
  const zoom = useRef(/** @type {[number, number] | null} */ (null));
  const [zoomed, setZoomed] = useState(false);
  const colors = useCell(palette);
  const enlarge = (/** @type {[number, number] | null} */ period) => {
    zoom.current = period;
    setZoomed(period !== null);
  };
  const optionsKey = JSON.stringify([lines, unit, height, legend]);

  useEffect(() => {
    const { current } = holder;
    if (!current) return undefined;
    const box = document.createElement('div');
    box.className = 'chart-values';
    box.hidden = true;
    box.setAttribute('aria-hidden', 'true');
    const drawn = new uPlot(
      optionsOf(
        lines,
        unit,
        height,
        legend,
        () => dots.current,
        () => zoom.current,
        {
          draw: [(it) => placeExemplars(it, dots.current, unit)],
          setCursor: [(it) => showValues(it, box, lines, unit)],
          setSelect: [
            ({ select, posToVal }) =>
              enlarge([posToVal(select.left, 'x'), posToVal(select.left + select.width, 'x')]),
          ],
        },
      ),
      data,
      current,
    );
    drawn.over.append(box);
    chart.current = drawn;
    const observer = new ResizeObserver(([{ contentRect }]) => {
      // uPlot does not shrink by itself.
      if (contentRect.width > 0) drawn.setSize({ width: Math.floor(contentRect.width), height });
    });
    observer.observe(current);
    return () => {
      observer.disconnect();
      drawn.destroy();
      chart.current = null;
    };
  }, [optionsKey, colors]);
  useEffect(() => chart.current?.setData(data), [data, exemplars]);

  const showAll = () => {
    enlarge(null);
    chart.current?.setData(data);
  };
  return html`<div class="chart" role="group" aria-label=${label} data-testid="chart" onDblClickCapture=${() => enlarge(null)}>
    <div ref=${holder}></div>
    ${zoomed && html`<button type="button" class="button chart-reset" onClick=${showAll}>Show all</button>`}
  </div>`;
}

/** Opens the trace of the newest exemplar. @param {any[]} exemplars */
export function openNewest(exemplars) {
  const exemplar = exemplars.findLast(({ trace_id: traceId }) => isId(traceId));
  if (!exemplar) return false;
  navigate(traceAddress(exemplar.trace_id, exemplar.span_id));
  return undefined;
}
