// A row of the waterfall: a span or a group of equal siblings.
import { html } from '../html.js';
import { between, count, duration, plural } from '../format.js';
import { hueOf } from '../hue.js';
import { join, place } from '../timeline.js';
import { isFailed } from '../waterfall.js';
import { extent } from './range.js';
import { Text } from './text.js';

/** @typedef {import('../waterfall.js').Row} Row */
/** @typedef {import('../timeline.js').Range} Range */

/** Height of a row in css/trace.css. */
export const ROW_HEIGHT = 28;

const MAX_INDENT = 14;
const MAX_MARKS = 20;

/** Space for the text of a duration, as a fraction of the width; sufficient on narrow screens. */
const DURATION_WIDTH = 0.28;

/** Minimum number of equal statements that is called N+1. */
const MANY_STATEMENTS = 10;

export const rowId = (/** @type {Row} */ { key }) => `span-${key}`;

/**
 * Returns the position of a span's duration: after its bar, or before or on it if there is no space.
 *
 * @param {{left: number, width: number}} part
 * @returns {{left?: string, right?: string}}
 */
function durationPosition({ left, width }) {
  if (left + width < 1 - DURATION_WIDTH) return { left: `${100 * (left + width)}%` };
  if (left > DURATION_WIDTH) return { right: `${100 * (1 - left)}%` };
  return { right: '0' };
}

/**
 * Returns the log records and events of a span in the range, as positions from 0 to 1.
 *
 * @param {any} span
 * @param {any[]} logs
 * @param {string} start of the trace
 * @param {Range} range
 */
function marksOf(span, logs, start, range) {
  const marks = [
    ...logs.map((log) => ({ type: 'log', time: log.time_unix_nano })),
    ...span.events.map((/** @type {any} */ { name, time_unix_nano: time }) => ({
      type: name === 'exception' ? 'exception' : 'event',
      time,
    })),
  ];
  return marks
    .slice(0, MAX_MARKS)
    .map(({ type, time }) => {
      const at = between(start, time);
      return { type, ...place({ start: at, end: at }, range) };
    })
    .filter(({ outside }) => !outside);
}

const KINDS = ['server', 'client', 'producer', 'consumer'];

/** @param {string} style @param {string} text @param {string} [title] */
const tag = (style, text, title) => html`<span class="tag ${style}" title=${title}>${text}</span>`;

/** What is special about a span, in short. @param {{row: Row, links: number, backLinks: number}} props */
function Tags({ row, links, backLinks }) {
  const { span, members } = row;
  const clock = span.clock_offset_ns;
  const isStatement = span.attributes['db.system.name'] ?? span.attributes['db.system'];
  return html`
    ${KINDS.includes(span.kind) && tag('tag-kind', span.kind)}
    ${
      members && isStatement && members.length >= MANY_STATEMENTS
        ? tag('tag-warn', 'N+1', 'One statement for each of many rows; consider one for all')
        : null
    }
    ${!members && span.missing_parent && tag('tag-warn', 'no parent', 'Its parent was not received')}
    ${!members && clock !== 0 && tag('tag-warn', 'clock', `Its clock seems to be off by ${duration(-clock)}`)}
    ${!members && links > 0 && tag('', `→ ${plural(links, 'link')}`, 'Links to other spans')}
    ${!members && backLinks > 0 && tag('', `← ${plural(backLinks, 'link')}`, 'Links of other spans to this one')}
  `;
}

/**
 * @param {object} props
 * @param {Row} props.row
 * @param {number} props.depth
 * @param {string | null} props.service null if it is the parent's
 * @param {number} props.index
 * @param {boolean} props.selected
 * @param {boolean} props.open
 * @param {boolean} props.foldable
 * @param {boolean} props.isMatch
 * @param {string} props.start of the trace
 * @param {Range} props.range
 * @param {any[]} props.logs
 * @param {number} props.backLinks
 * @param {Range[]} props.critical
 * @param {() => void} props.onSelect
 * @param {() => void} props.onFold
 */
export function SpanRow(props) {
  const { row, depth, service, index, selected, open, foldable, isMatch, start, range, logs, backLinks, critical } =
    props;
  const { span, members } = row;
  const failed = isFailed(row);
  const hidden = open ? 0 : row.failures;
  const bar = place(row, range);
  const text = durationPosition(bar);
  const bars = join(
    (members ?? [row]).map(({ start: from, end: to }) => ({ from, to })),
    range,
  );
  return html`<div
    id=${rowId(row)}
    class="span-row ${selected ? 'is-selected' : ''} ${failed ? 'is-error' : ''} ${isMatch ? 'is-match' : ''}"
    style=${{ top: `${index * ROW_HEIGHT}px`, '--hue': hueOf(span.service) }}
    role="treeitem"
    aria-level=${depth + 1}
    aria-selected=${selected}
    aria-expanded=${foldable ? open : undefined}
    data-testid=${members ? 'group-row' : 'span-row'}
    data-span-id=${members ? undefined : span.span_id}
    data-service=${span.service}
    onClick=${props.onSelect}
  >
    <div class="span-label" style=${{ '--depth': Math.min(depth, MAX_INDENT) }}>
      ${
        foldable
          ? html`<button
            type="button"
            class="fold"
            tabindex="-1"
            aria-label=${open ? 'Fold' : `Unfold ${plural(row.descendants, 'span')}`}
            onClick=${(/** @type {Event} */ event) => {
              event.stopPropagation();
              props.onFold();
            }}
          >
            ${open ? '▾' : '▸'}
          </button>`
          : html`<span class="fold"></span>`
      }
      <span class="span-service-mark" aria-hidden="true"></span>
      ${
        failed &&
        html`<span class="span-error"
          ><span aria-hidden="true">!</span><span class="screen-reader-title">error</span></span
        >`
      }
      ${members && html`<strong class="num">${count(members.length)} ×</strong>`}
      <span class="span-name"><${Text} value=${span.name || '(no name)'} limit=${120} /></span>
      ${hidden > 0 && html`<span class="tag tag-error">${plural(hidden, 'error')}</span>`}
      ${!members && foldable && !open && html`<span class="tag">+${count(row.descendants)}</span>`}
      <${Tags} row=${row} links=${span.links.length} backLinks=${backLinks} />
      ${service !== null && html`<span class="span-service"><${Text} value=${service} limit=${60} /></span>`}
    </div>
    <div class="span-track">
      ${bars.map((part) => html`<span class="span-bar ${members ? 'is-member' : ''}" style=${extent(part, range)}></span>`)}
      ${join(critical, range).map((part) => html`<span class="span-critical" style=${extent(part, range)}></span>`)}
      ${marksOf(span, logs, start, range).map(
        ({ type, left }) => html`<span class="span-mark mark-${type}" style=${{ left: `${100 * left}%` }}></span>`,
      )}
      <span class="span-duration ${text.right === '0' ? 'is-inside' : ''}" style=${text}
        >${bar.outside === 'before' && '◂ '}${duration(row.end - row.start)}${bar.outside === 'after' && ' ▸'}</span
      >
    </div>
  </div>`;
}
