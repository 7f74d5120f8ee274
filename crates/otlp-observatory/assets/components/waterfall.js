// The waterfall: a tree of spans. Only visible rows are rendered, which keeps scrolling smooth in large traces.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../html.js';
import { between, duration } from '../format.js';
import { hueOf } from '../hue.js';
import { useKeys } from '../keys.js';
import { plain } from '../text.js';
import { ancestors, layOut, ticks, visible } from '../waterfall.js';
import { Text } from './text.js';

/** Height of a row in css/trace.css. */
const ROW_HEIGHT = 28;
const OVERSCAN = 12;
const MAX_INDENT = 14;
const MAX_MARKS = 20;

/** Space for the text of a duration, as a fraction of the width; sufficient on narrow screens. */
const DURATION_WIDTH = 0.28;

const rowId = (/** @type {string} */ spanId) => `span-${spanId}`;

/** Returns the visible part of a scrolled element. @param {{current: HTMLElement | null}} element */
function useViewport(element) {
  const [view, setView] = useState({ top: 0, height: 800 });
  useLayoutEffect(() => {
    const { current } = element;
    if (!current) return undefined;
    const look = () => setView({ top: current.scrollTop, height: current.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(current);
    current.addEventListener('scroll', look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      current.removeEventListener('scroll', look);
    };
  }, []);
  return view;
}

/**
 * Returns the position of a span's duration: after its bar, or before or on it if there is no space.
 *
 * @param {import('../waterfall.js').Row} row
 * @returns {{left?: string, right?: string}}
 */
function durationPosition({ left, width }) {
  if (left + width < 1 - DURATION_WIDTH) return { left: `${100 * (left + width)}%` };
  if (left > DURATION_WIDTH) return { right: `${100 * (1 - left)}%` };
  return { right: '0' };
}

/**
 * @param {object} props
 * @param {import('../waterfall.js').Row} props.row
 * @param {boolean} props.isEntry whether the parent belongs to another service
 * @param {number} props.index
 * @param {boolean} props.selected
 * @param {boolean} props.folded
 * @param {number[]} props.marks positions of log records, 0 to 1
 * @param {() => void} props.onSelect
 * @param {() => void} props.onFold
 */
function SpanRow({ row, isEntry, index, selected, folded, marks, onSelect, onFold }) {
  const { span } = row;
  const failed = span.status === 'error';
  const place = durationPosition(row);
  const label = `${plain(span.name)}, ${plain(span.service)}, ${duration(span.duration_ns)}${failed ? ', error' : ''}`;
  return html`<div
    id=${rowId(span.span_id)}
    class="span-row ${selected ? 'is-selected' : ''} ${failed ? 'is-error' : ''}"
    style=${{ top: `${index * ROW_HEIGHT}px`, '--hue': hueOf(span.service) }}
    role="treeitem"
    aria-level=${row.depth + 1}
    aria-selected=${selected}
    aria-expanded=${row.descendants > 0 ? !folded : undefined}
    aria-label=${label}
    data-testid="span-row"
    data-span-id=${span.span_id}
    data-service=${span.service}
    onClick=${onSelect}
  >
    <div class="span-label" style=${{ '--depth': Math.min(row.depth, MAX_INDENT) }}>
      ${
        row.descendants > 0
          ? html`<button
            type="button"
            class="fold"
            tabindex="-1"
            aria-label=${folded ? `Unfold ${row.descendants} spans` : 'Fold'}
            onClick=${(/** @type {Event} */ event) => {
              event.stopPropagation();
              onFold();
            }}
          >
            ${folded ? '▸' : '▾'}
          </button>`
          : html`<span class="fold"></span>`
      }
      <span class="span-service-mark" aria-hidden="true"></span>
      ${failed && html`<span class="span-error" aria-hidden="true">!</span>`}
      <span class="span-name"><${Text} value=${span.name || '(no name)'} limit=${120} /></span>
      ${isEntry && html`<span class="span-service"><${Text} value=${span.service} limit=${40} /></span>`}
      ${folded && html`<span class="tag">+${row.descendants}</span>`}
    </div>
    <div class="span-track">
      <span class="span-bar" style=${{ left: `${100 * row.left}%`, width: `${100 * row.width}%` }}></span>
      ${marks.map((at) => html`<span class="span-mark" style=${{ left: `${100 * at}%` }}></span>`)}
      <span
        class="span-duration ${place.right === '0' ? 'is-inside' : ''}"
        style=${place}
        >${duration(span.duration_ns)}</span
      >
    </div>
  </div>`;
}

/**
 * @param {object} props
 * @param {any} props.trace
 * @param {string | null} props.selected a span id
 * @param {(spanId: string) => void} props.onSelect
 * @param {() => void} props.onOpen called when Enter is pressed
 */
export function Waterfall({ trace, selected, onSelect, onOpen }) {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useViewport(scroller);
  const [folded, setFolded] = useState(/** @type {ReadonlySet<string>} */ (new Set()));
  const all = useMemo(() => layOut(trace.spans, trace.start_unix_nano, trace.duration_ns), [trace]);
  const rows = useMemo(() => visible(all, folded), [all, folded]);
  const marks = useMemo(() => logMarks(trace), [trace]);
  const services = useMemo(
    () => new Map(trace.spans.map((/** @type {any} */ span) => [span.span_id, span.service])),
    [trace],
  );
  const at = rows.findIndex(({ span }) => span.span_id === selected);

  const setFold = (/** @type {string} */ spanId, /** @type {boolean} */ fold) => {
    const next = new Set(folded);
    if (fold) next.add(spanId);
    else next.delete(spanId);
    setFolded(next);
  };
  // A span that was selected elsewhere may be hidden below a folded one.
  useEffect(() => {
    if (!selected || at >= 0) return;
    const closed = ancestors(all, selected).filter((spanId) => folded.has(spanId));
    if (closed.length > 0) setFolded(new Set([...folded].filter((spanId) => !closed.includes(spanId))));
  }, [selected]);
  useEffect(() => {
    const { current } = scroller;
    if (!current || at < 0) return;
    const top = at * ROW_HEIGHT;
    if (top < current.scrollTop) current.scrollTop = top;
    else if (top + ROW_HEIGHT > current.scrollTop + current.clientHeight)
      current.scrollTop = top + ROW_HEIGHT - current.clientHeight;
  }, [selected, rows.length]);

  const move = (/** @type {number} */ step) => () => {
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
    if (next) onSelect(next.span.span_id);
  };
  const fold = (/** @type {boolean} */ close) => () => {
    const row = rows[at];
    if (row?.descendants > 0 && folded.has(row.span.span_id) !== close) setFold(row.span.span_id, close);
    else if (close && row && all.some(({ span }) => span.span_id === row.span.parent_span_id))
      onSelect(row.span.parent_span_id);
    else if (!close) move(1)();
  };
  useKeys({
    j: ['next span', move(1)],
    k: ['previous span', move(-1)],
    ArrowDown: ['', move(1)],
    ArrowUp: ['', move(-1)],
    ArrowRight: ['unfold, or go to the first child', fold(false)],
    ArrowLeft: ['fold, or go to the parent', fold(true)],
    // A focused button or link handles Enter itself.
    Enter: [
      'show the span',
      () => {
        if (document.activeElement !== scroller.current && document.activeElement !== document.body) return false;
        onOpen();
        return undefined;
      },
    ],
  });

  const first = Math.max(0, Math.floor(view.top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW_HEIGHT) + OVERSCAN);
  const drawn = rows.slice(first, last);
  return html`<div class="waterfall" data-testid="waterfall">
    <div class="waterfall-head">
      <span class="span-label">Span</span>
      <div class="span-track">
        ${ticks(trace.duration_ns).map(
          (tick) =>
            html`<span class="tick" style=${{ left: `${(100 * tick) / Math.max(1, trace.duration_ns)}%` }}>${duration(tick)}</span>`,
        )}
      </div>
    </div>
    <div
      class="waterfall-rows"
      ref=${scroller}
      role="tree"
      tabindex="0"
      aria-label="Spans"
      aria-activedescendant=${at >= first && at < last ? rowId(rows[at].span.span_id) : undefined}
    >
      <div class="waterfall-space" style=${{ height: `${rows.length * ROW_HEIGHT}px` }} role="presentation">
        ${drawn.map(
          (row, index) =>
            html`<${SpanRow}
              key=${row.span.span_id}
              row=${row}
              isEntry=${services.get(row.span.parent_span_id) !== row.span.service}
              index=${first + index}
              selected=${row.span.span_id === selected}
              folded=${folded.has(row.span.span_id)}
              marks=${marks.get(row.span.span_id) ?? []}
              onSelect=${() => onSelect(row.span.span_id)}
              onFold=${() => setFold(row.span.span_id, !folded.has(row.span.span_id))}
            />`,
        )}
      </div>
    </div>
  </div>`;
}

/**
 * Returns the positions of each span's log records on the trace's scale.
 *
 * @param {any} trace
 * @returns {Map<string, number[]>}
 */
function logMarks(trace) {
  const marks = new Map();
  for (const log of trace.logs) {
    if (!log.span_id) continue;
    const at = between(trace.start_unix_nano, log.time_unix_nano) / Math.max(1, trace.duration_ns);
    if (!marks.has(log.span_id)) marks.set(log.span_id, []);
    const positions = marks.get(log.span_id);
    if (at >= 0 && at <= 1 && positions.length < MAX_MARKS) positions.push(at);
  }
  return marks;
}
