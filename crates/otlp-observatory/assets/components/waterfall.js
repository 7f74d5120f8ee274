// The waterfall: a tree of spans on a time scale. Only visible rows are rendered, which keeps scrolling smooth in large
// traces.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../html.js';
import { criticalPath } from '../critical-path.js';
import { named } from '../find.js';
import { duration } from '../format.js';
import { useKeys } from '../keys.js';
import { statistics } from '../statistics.js';
import { follow, lengthOf, pan, ticks, within, zoom } from '../timeline.js';
import { foldedBelow, isFailed, isOpen, levelsOf, reveal, visible, withAncestors } from '../waterfall.js';
import { extent, useDrag } from './range.js';
import { Minimap } from './minimap.js';
import { ROW_HEIGHT, SpanRow, rowId } from './span-row.js';
import { Statistics } from './statistics.js';
import { ViewTools } from './trace-tools.js';

/** @typedef {import('../waterfall.js').Row} Row */
/** @typedef {import('../timeline.js').Range} Range */

const OVERSCAN = 12;

/** Returns the visible part of a scrolled element. @param {{current: HTMLElement | null}} element @param {unknown} mode */
function useViewport(element, mode) {
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
  }, [mode]);
  return view;
}

/**
 * The head of the time scale; a drag zooms into its range.
 *
 * @param {{range: Range, whole: Range, onRange: (range: Range) => void}} props
 */
function Scale({ range, whole, onRange }) {
  const { drag, handlers } = useDrag(range, (selected) => onRange(within(selected, whole)));
  const { at, digits } = ticks(range);
  return html`<div class="waterfall-head">
    <span class="span-label">Span</span>
    <div class="span-track" data-testid="scale" title="Drag to zoom" ...${handlers}>
      ${at.map(
        (tick) =>
          html`<span class="tick" style=${{ left: `${(100 * (tick - range.from)) / lengthOf(range)}%` }}
            >${duration(tick, digits)}</span
          >`,
      )}
      ${drag && html`<span class="minimap-window" style=${extent(drag, range)}></span>`}
    </div>
  </div>`;
}

/**
 * @param {object} props
 * @param {any} props.trace
 * @param {Row[]} props.rows
 * @param {Row | null} props.selected
 * @param {Row[]} props.matches
 * @param {boolean} props.only whether only matches are shown
 * @param {Map<Row, any[]>} props.logs
 * @param {Map<string, any[]>} props.backLinks links to a span, by its key
 * @param {(span: any) => string} props.serviceOf
 * @param {{aligned: boolean, toggle: () => void}} props.clocks
 * @param {(row: Row) => void} props.onSelect
 * @param {(step: 1 | -1) => void} props.onError
 * @param {(query: string) => void} props.onFind
 * @param {() => void} props.onOpen called when Enter is pressed
 * @param {any} props.findBar
 */
export function Waterfall(props) {
  const { trace, rows, selected, matches, only, logs, backLinks, serviceOf, clocks, onSelect } = props;
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const [toggled, setToggled] = useState(/** @type {ReadonlySet<string>} */ (new Set()));
  const [level, setLevel] = useState(Infinity);
  const [grouping, setGrouping] = useState(true);
  const [hasPath, setHasPath] = useState(true);
  const [mode, setMode] = useState('timeline');
  const [part, setPart] = useState(/** @type {Range | null} */ (null));
  const view = useViewport(scroller, mode);

  const whole = useMemo(() => ({ from: 0, to: Math.max(1, trace.duration_ns) }), [trace.duration_ns]);
  const range = part ? within(part, whole) : whole;
  const levels = useMemo(() => levelsOf(rows), [rows]);
  const shown = useMemo(() => (only ? withAncestors(matches) : null), [only, matches]);
  const entries = useMemo(() => visible(rows, { toggled, grouping, shown }), [rows, toggled, grouping, shown]);
  const path = useMemo(() => criticalPath(rows), [rows]);
  const matching = useMemo(() => new Set(matches), [matches]);
  const at = useMemo(() => entries.findIndex(({ row }) => row.key === selected?.key), [entries, selected?.key]);

  const setRange = (/** @type {Range} */ next) => setPart(lengthOf(next) < lengthOf(whole) ? next : null);
  const fold = (/** @type {Row} */ row) => {
    const next = new Set(toggled);
    if (!next.delete(row.key)) next.add(row.key);
    setToggled(next);
  };
  const showLevels = (/** @type {number} */ next) => {
    setLevel(next);
    setToggled(foldedBelow(rows, next));
  };
  // A selected span may be hidden below a folded span or in a group, or be outside of the range.
  useEffect(() => {
    if (!selected) return;
    if (at < 0 && !selected.members) setToggled(reveal(selected, toggled));
    if (part) setPart(follow(range, selected, whole));
  }, [selected?.key]);
  useEffect(() => {
    const { current } = scroller;
    if (!current || at < 0) return;
    const top = at * ROW_HEIGHT;
    const below = top + ROW_HEIGHT - (current.scrollTop + current.clientHeight);
    const isNear = Math.abs(top - current.scrollTop) < 2 * ROW_HEIGHT || Math.abs(below) < 2 * ROW_HEIGHT;
    if (top >= current.scrollTop && below <= 0) return;
    if (!isNear) current.scrollTop = top - current.clientHeight / 2;
    else current.scrollTop = below > 0 ? current.scrollTop + below : top;
  }, [selected?.key, at, mode]);

  const move = (/** @type {number} */ step) => () => {
    const next = entries[at < 0 ? 0 : Math.min(entries.length - 1, Math.max(0, at + step))];
    if (next) onSelect(next.row);
  };
  const foldTo = (/** @type {boolean} */ close) => () => {
    const row = entries[at]?.row;
    if (!row) return;
    const parent = grouping && !shown ? (row.group ?? row.parent) : row.parent;
    if (row.descendants > 0 && !shown && isOpen(row, toggled) === close) fold(row);
    else if (close && parent) onSelect(parent);
    else if (!close) move(1)();
  };
  const actions = {
    error: props.onError,
    mode: setMode,
    group: () => setGrouping(!grouping),
    critical: () => setHasPath(!hasPath),
    align: clocks.toggle,
    level: (/** @type {number} */ next) => showLevels(Math.min(levels, Math.max(1, next))),
    zoom: (/** @type {number} */ factor) => setRange(zoom(range, factor, whole)),
    whole: () => setPart(null),
  };
  const currentLevel = Math.min(level, levels);
  useKeys({
    j: ['next span', move(1)],
    k: ['previous span', move(-1)],
    ArrowDown: ['', move(1)],
    ArrowUp: ['', move(-1)],
    ArrowRight: ['unfold, or go to the first child', foldTo(false)],
    ArrowLeft: ['fold, or go to the parent', foldTo(true)],
    '[': ['one level fewer', () => actions.level(currentLevel - 1)],
    ']': ['one level more', () => actions.level(currentLevel + 1)],
    '{': ['fold all', () => actions.level(1)],
    '}': ['unfold all', () => actions.level(levels)],
    g: ['group equal siblings', actions.group],
    c: ['critical path', actions.critical],
    s: ['statistics, or timeline', () => setMode(mode === 'timeline' ? 'statistics' : 'timeline')],
    '+': ['zoom in', () => actions.zoom(2)],
    '-': ['zoom out', () => actions.zoom(0.5)],
    '<': ['earlier', () => setRange(pan(range, -0.25, whole))],
    '>': ['later', () => setRange(pan(range, 0.25, whole))],
    z: ['zoom to the span', () => selected && setRange(within({ from: selected.start, to: selected.end }, whole))],
    0: ['whole trace', actions.whole],
    // A focused button or link handles Enter itself.
    Enter: [
      'show the span',
      () => {
        if (document.activeElement !== scroller.current && document.activeElement !== document.body) return false;
        props.onOpen();
        return undefined;
      },
    ],
  });

  // After folding, the browser has not yet moved the scrolled position into the shorter list.
  const top = Math.max(0, Math.min(view.top, entries.length * ROW_HEIGHT - view.height));
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(entries.length, Math.ceil((top + view.height) / ROW_HEIGHT) + OVERSCAN);
  const counts = {
    errors: rows.filter(isFailed).length,
    levels,
    level: currentLevel,
    skewed: trace.skewed_spans,
    aligned: clocks.aligned,
    groups: rows.some(({ group }) => group),
  };
  const tools = html`<div class="trace-tools">
    ${props.findBar}
    <${ViewTools} trace=${counts} view=${{ grouping, critical: hasPath, mode, zoomed: part !== null }} actions=${actions} />
  </div>`;
  if (mode === 'statistics') {
    const onFind = (/** @type {string} */ name) => {
      setMode('timeline');
      props.onFind(named(name));
    };
    return html`${tools}<${Statistics} statistics=${statistics(rows, path)} whole=${trace.duration_ns} onFind=${onFind} />`;
  }
  return html`${tools}<div class="waterfall" data-testid="waterfall">
    <${Minimap} rows=${rows} whole=${whole} range=${range} onRange=${setRange} />
    <${Scale} range=${range} whole=${whole} onRange=${setRange} />
    <div
      class="waterfall-rows"
      ref=${scroller}
      role="tree"
      tabindex="0"
      aria-label="Spans"
      aria-activedescendant=${at >= first && at < last ? rowId(entries[at].row) : undefined}
    >
      <div class="waterfall-space" style=${{ height: `${entries.length * ROW_HEIGHT}px` }} role="presentation">
        ${entries.slice(first, last).map(
          ({ row, depth }, index) =>
            html`<${SpanRow}
              key=${row.key}
              row=${row}
              depth=${depth}
              service=${row.parent && serviceOf(row.parent.span) === serviceOf(row.span) ? null : serviceOf(row.span)}
              index=${first + index}
              selected=${first + index === at}
              open=${Boolean(shown) || isOpen(row, toggled)}
              foldable=${row.descendants > 0 && !shown}
              isMatch=${matching.has(row)}
              start=${trace.start_unix_nano}
              range=${range}
              logs=${row.members ? [] : (logs.get(row) ?? [])}
              backLinks=${backLinks.get(row.key)?.length ?? 0}
              critical=${hasPath ? criticalOf(row, path) : []}
              onSelect=${() => onSelect(row)}
              onFold=${() => fold(row)}
            />`,
        )}
      </div>
    </div>
  </div>`;
}

/** @param {Row} row @param {Map<Row, Range[]>} path */
const criticalOf = (row, path) => (row.members ?? [row]).flatMap((one) => path.get(one) ?? []);
