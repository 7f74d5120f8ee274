// Problems: errors, repeated and slow operations, and traces that contradict themselves.
import { html, useRef } from '../html.js';
import { useCell } from '../cell.js';
import { FilterForm, useServices } from '../components/filters.js';
import { Choice, Empty, Loading, ErrorMessage, MemoryNote } from '../components/parts.js';
import { useSorted } from '../components/sort-head.js';
import { Service, Text } from '../components/text.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { ago, clock, count, dateTime, duration, plural } from '../format.js';
import { useRowKeys } from '../keys.js';
import { useLive } from '../live.js';
import { mark, markNow } from '../mark.js';
import { address, navigate, traceAddress } from '../router.js';

/** Kinds with their names, the gravest first; those before `wrong_status` are failures. @type {[string, string][]} */
const KINDS = [
  ['error', 'Error'],
  ['failed_task', 'Failed task'],
  ['poison_message', 'Poison message'],
  ['retry_storm', 'Retry storm'],
  ['pool_exhausted', 'Pool exhausted'],
  ['pool_wait', 'Pool wait'],
  ['wrong_status', 'Wrong status'],
  ['n_plus_one', 'N+1'],
  ['slow_statement', 'Slow statement'],
  ['slow_request', 'Slow request'],
  ['slow_call', 'Slow call'],
  ['slow_task', 'Slow task'],
  ['queue_delay', 'Queue delay'],
  ['duplicate_message', 'Duplicate message'],
  ['lost_parent', 'Lost parent'],
  ['clock_skew', 'Clock skew'],
  ['unnamed_service', 'Unnamed service'],
  ['error_log', 'Error log'],
];

const NAMES = new Map(KINDS);
const FAILURES = new Set(['error', 'failed_task', 'poison_message', 'retry_storm', 'pool_exhausted', 'error_log']);

/** @type {import('../sort.js').Columns} */
const COLUMNS = {
  kind: (problem) => KINDS.findIndex(([kind]) => kind === problem.kind),
  title: (problem) => problem.title,
  service: (problem) => problem.service,
  count: (problem) => problem.count,
  traces: (problem) => problem.traces,
  longest: (problem) => problem.max_ns,
  seen: (problem) => BigInt(problem.last_seen_unix_nano),
};

/** @param {{problem: any}} props */
function Row({ problem }) {
  const [first, ...others] = problem.trace_ids;
  return html`<tr data-testid="problem" data-kind=${problem.kind}>
    <td><span class="tag ${FAILURES.has(problem.kind) ? 'tag-error' : 'tag-warn'}">${NAMES.get(problem.kind) ?? problem.kind}</span></td>
    <td class="problem-title">
      ${
        first
          ? html`<a class="row-link" data-row href=${traceAddress(first, problem.span_id)}><${Text} value=${problem.title} limit=${300} dotted /></a>`
          : html`<${Text} value=${problem.title} limit=${300} dotted />`
      }
      ${problem.new && html` <span class="tag tag-error">new</span>`}
    </td>
    <td><${Service} name=${problem.service} /></td>
    <td class="num">${count(problem.count)}</td>
    <td class="num">
      ${count(problem.traces)}
      ${others.map(
        (/** @type {string} */ id, /** @type {number} */ index) =>
          html`<a key=${id} class="inline-link" href=${traceAddress(id)} aria-label=${`Another trace, ${index + 2}`}> #${index + 2}</a>`,
      )}
    </td>
    <td class="num">${problem.max_ns > 0 ? duration(problem.max_ns) : html`<span class="muted">–</span>`}</td>
    <td class="num muted"><time title=${`first ${dateTime(problem.first_seen_unix_nano)}`}>${ago(problem.last_seen_unix_nano, Date.now())}</time></td>
  </tr>`;
}

/** @param {{path: string, query: string}} props */
export function Page({ path, query }) {
  const services = useServices();
  const marked = useCell(mark);
  const filters = readFilters(query);
  const since = String(filters.since ?? '');
  const { body, error, stale } = useLive(filterAddress('/problems', filters), { every: 3000 });
  const { sorted, head } = useSorted(body?.problems ?? [], COLUMNS);
  const list = useRef(null);
  useRowKeys(list);
  const show = (/** @type {string} */ next) =>
    navigate(filterAddress(path, withFilter(readFilters(location.search), 'since', next)));
  /** @type {[string, string][]} */
  const options = [
    ['', 'all'],
    ['15m', '15 min'],
    ['restart', 'since restart'],
  ];
  if (marked) options.push([marked, `since ${clock(marked).slice(0, 8)}`]);
  else if (/^[0-9]+$/.test(since)) options.push([since, `since ${clock(since).slice(0, 8)}`]);
  return html`
    <div class="title-row">
      <h1>Problems</h1>
      <div class="actions">
        <button type="button" class="button" data-testid="mark" onClick=${() => show(markNow())}>Mark now</button>
        <${Choice} label="Since" options=${options} value=${since} onChange=${show} />
      </div>
    </div>
    <${FilterForm}
      path=${path}
      query=${query}
      attributes=${false}
      fields=${[
        { name: 'service', label: 'Service', options: services },
        { name: 'kind', label: 'Kind', options: [['', 'all'], ...KINDS] },
        { name: 'since', label: 'Since', placeholder: '15m, restart' },
      ]}
    />
    <p class="muted">
      What changed? <a class="inline-link" href=${address('/compare', { at: marked || since.replace('restart', '') })}>Compare before and after</a>
    </p>
    <${ErrorMessage} error=${error} />
    <${MemoryNote} since=${body?.memory_since_unix_nano} />
    ${
      body?.complete === false &&
      html`<p class="muted" role="status">The search ran out of time: only the newest telemetry was inspected.</p>`
    }
    ${
      body === null
        ? !error && html`<${Loading} />`
        : body.problems.length === 0
          ? html`<${Empty} title="No problems found."><p>This page updates when telemetry arrives.</p><//>`
          : html`<div aria-busy=${stale} class="scroll-x panel" ref=${list} tabindex="0" role="region" aria-label="Problems">
            <table class="table problems" data-testid="problems">
              <thead>
                <tr>
                  ${head('kind', 'Kind', false)}${head('title', 'Problem', false)}${head('service', 'Service', false)}
                  ${head('count', 'Count')}${head('traces', 'Traces')}${head('longest', 'Longest')}${head('seen', 'Last seen')}
                </tr>
              </thead>
              <tbody>
                ${sorted.map((/** @type {any} */ problem) => html`<${Row} key=${`${problem.kind} ${problem.service} ${problem.title}`} problem=${problem} />`)}
              </tbody>
            </table>
          </div>`
    }
    ${body && body.total > body.problems.length && html`<p class="muted">${count(body.problems.length)} of ${plural(body.total, 'problem')}</p>`}
  `;
}
