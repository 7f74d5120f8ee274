// The list of traces, newest first. The first page is live; older traces are loaded on demand and not updated.
import { html, useEffect, useRef, useState } from '../html.js';
import { get } from '../api.js';
import { AGES, FilterForm, useServices } from '../components/filters.js';
import { Empty, Loading, ErrorMessage, MemoryNote } from '../components/parts.js';
import { SortHead } from '../components/sort-head.js';
import { Service, Text } from '../components/text.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { clockOrDate, count, duration, dateTime, plural } from '../format.js';
import { useRowKeys } from '../keys.js';
import { useLive } from '../live.js';
import { navigate, traceAddress } from '../router.js';
import { brief } from '../services.js';

// Maximum number of rows; more would make the page slow.
const MAX_ROWS = 1000;

// Pattern of a complete duration; incomplete ones do not filter.
const DURATION = '\\s*[0-9]+(\\.[0-9]+)?(us|ms|s)\\s*';

const MAX_SERVICES = 4;

/** @type {[column: string, title: string, numeric: boolean][]} */
const COLUMNS = [
  ['start', 'Start', false],
  ['name', 'Trace', false],
  ['errors', 'Errors', true],
  ['duration', 'Duration', true],
  ['spans', 'Spans', true],
  ['logs', 'Logs', true],
  ['services', 'Services', false],
];

/** Frequent orders; the heads of the columns have them all. @type {[string, string][]} */
const ORDERS = [
  ['', 'newest'],
  ['-duration', 'slowest'],
  ['-errors', 'most errors'],
  ['-spans', 'most spans'],
  ['-logs', 'most logs'],
];

/**
 * Returns a bar's width in percent, on a square-root scale: on a linear one, a slow trace would flatten the others.
 *
 * @param {number} duration
 * @param {number} longest
 */
const barOf = (duration, longest) => Math.max(2, 100 * Math.sqrt(duration / longest));

/** Returns the number of spans, and the instances if the service has several. @param {any} service */
const detailOf = ({ spans, instances }) => [count(spans), ...(instances ?? []).map(brief)].join(' ');

/** @param {{trace: any, longest: number}} props */
function Row({ trace, longest }) {
  const { root, services } = trace;
  return html`<tr class=${trace.errors > 0 ? 'is-error' : ''} data-testid="trace-row" data-trace-id=${trace.trace_id}>
    <td class="num muted"><time title=${dateTime(trace.start_unix_nano)}>${clockOrDate(trace.start_unix_nano)}</time></td>
    <td class="trace-name">
      <a class="row-link" data-row href=${traceAddress(trace.trace_id)}><${Text} value=${root.name || '(no name)'} limit=${160} /></a>
      ${trace.dropped_spans > 0 && html`<span class="tag tag-warn">${plural(trace.dropped_spans, 'span')} dropped</span>`}
    </td>
    <td class="num">${trace.errors > 0 ? html`<span class="tag tag-error">${plural(trace.errors, 'error')}</span>` : html`<span class="muted">–</span>`}</td>
    <td class="num duration">
      <span class="duration-bar" aria-hidden="true"
        ><span style=${{ width: `${barOf(trace.duration_ns, longest)}%` }}></span></span
      >${duration(trace.duration_ns)}
    </td>
    <td class="num">${count(trace.spans)}</td>
    <td class="num">${trace.logs > 0 ? count(trace.logs) : html`<span class="muted">–</span>`}</td>
    <td class="services">
      ${services
        .slice(0, MAX_SERVICES)
        .map(
          (/** @type {any} */ one) =>
            html`<${Service} key=${one.service} name=${one.service} detail=${detailOf(one)} />`,
        )}
      ${services.length > MAX_SERVICES && html`<span class="muted">+${services.length - MAX_SERVICES}</span>`}
    </td>
  </tr>`;
}

/** Appends older traces to those of the live page. @param {any[]} live @param {any[]} older */
function merge(live, older) {
  const known = new Set(live.map((trace) => trace.trace_id));
  return [...live, ...older.filter((trace) => !known.has(trace.trace_id))].slice(0, MAX_ROWS);
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const services = useServices();
  const filters = readFilters(query);
  const sort = String(filters.sort ?? '');
  const sortBy = (/** @type {string} */ next) => navigate(filterAddress('/traces', withFilter(filters, 'sort', next)));
  const address = filterAddress('/traces', filters);
  const { body, error, stale } = useLive(address);
  const [older, setOlder] = useState({
    address,
    traces: /** @type {any[]} */ ([]),
    next: /** @type {string | null} */ (null),
  });
  const [fetching, setFetching] = useState(false);
  const list = useRef(null);
  useRowKeys(list);
  useEffect(() => setOlder({ address, traces: [], next: null }), [address]);

  const more = older.address === address && older.traces.length > 0;
  const traces = merge(body?.traces ?? [], more ? older.traces : []);
  const next = more ? older.next : body?.next;
  const longest = Math.max(1, ...traces.map((trace) => trace.duration_ns));
  const fetchOlder = async () => {
    setFetching(true);
    try {
      const response = await get(filterAddress('/traces', withFilter(filters, 'before', next)));
      // Newer traces will replace those on the live page, so the current ones are kept.
      setOlder({ address, traces: [...traces, ...(response?.body.traces ?? [])], next: response?.body.next ?? null });
    } catch {
      // Polling reports the same error.
    } finally {
      setFetching(false);
    }
  };

  return html`
    <h1 class="screen-reader-title">Traces</h1>
    <${FilterForm}
      path="/traces"
      query=${query}
      language="traces"
      fields=${[
        { name: 'text', label: 'Text', placeholder: 'any text in a span', search: true },
        { name: 'service', label: 'Service', options: services },
        { name: 'name', label: 'Route or span', placeholder: 'part of the name' },
        {
          name: 'status',
          label: 'Status',
          options: [
            ['', 'any'],
            ['ok', 'ok'],
            ['error', 'error'],
          ],
          narrow: true,
        },
        { name: 'min_duration', label: 'At least', placeholder: '10ms', pattern: DURATION, narrow: true },
        { name: 'max_duration', label: 'At most', placeholder: '1.5s', pattern: DURATION, narrow: true },
        { name: 'from', label: 'Time', options: AGES, narrow: true },
        { name: 'sort', label: 'Order', options: ORDERS, narrow: true },
      ]}
    />
    <${ErrorMessage} error=${error} />
    ${sort && html`<${MemoryNote} since=${body?.memory_since_unix_nano} />`}
    ${
      body?.complete === false &&
      html`<p class="muted" role="status">The search ran out of time: only a part of the traces was compared.</p>`
    }
    ${
      body === null
        ? !error && html`<${Loading} />`
        : traces.length === 0
          ? html`<${Empty} title=${Object.keys(filters).length > 0 ? 'No traces match these filters.' : 'No traces yet.'}>
            <p>${Object.keys(filters).length > 0 ? html`<a href="/traces">Show all</a>` : html`<a href="/">How to send traces</a>`}</p>
          <//>`
          : html`<div tabindex="0" role="region" aria-label="Traces" aria-busy=${stale} class="scroll-x panel" ref=${list}>
            <table class="table traces" data-testid="traces">
              <thead>
                <tr>
                  ${COLUMNS.map(
                    ([column, title, numeric]) =>
                      html`<${SortHead} column=${column} title=${title} numeric=${numeric} sort=${sort} onSort=${sortBy} />`,
                  )}
                </tr>
              </thead>
              <tbody>
                ${traces.map((trace) => html`<${Row} key=${trace.trace_id} trace=${trace} longest=${longest} />`)}
              </tbody>
            </table>
          </div>`
    }
    ${
      next &&
      traces.length < MAX_ROWS &&
      html`<p class="more"><button type="button" class="button" data-testid="older" disabled=${fetching} onClick=${fetchOlder}>${sort ? 'More traces' : 'Older traces'}</button></p>`
    }
  `;
}
