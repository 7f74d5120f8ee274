// The overview: requests, errors and latency by service and route, and tasks by state.
import { html, useMemo } from '../html.js';
import { Chart } from '../components/chart.js';
import { FirstVisit } from '../components/first-visit.js';
import { Choice, Loading, Panel, ErrorMessage, MemoryNote } from '../components/parts.js';
import { useSorted } from '../components/sort-head.js';
import { Service, Text } from '../components/text.js';
import { readFilters } from '../filters.js';
import { ago, count, duration, milliseconds, percent, rate } from '../format.js';
import { useLive } from '../live.js';
import { address, navigate } from '../router.js';

/** @type {[string, string][]} */
const WINDOWS = [
  ['1m', '1 min'],
  ['5m', '5 min'],
  ['15m', '15 min'],
  ['1h', '1 h'],
];

/** Window that covers all stored telemetry. */
const MAX_WINDOW = '24h';

/** @param {{label: string, value: string, hint?: any, bad?: boolean, testid: string}} props */
function Figure({ label, value, hint, bad = false, testid }) {
  return html`<div class="figure ${bad ? 'is-bad' : ''}" data-testid=${testid}>
    <dt>${label}</dt>
    <dd><strong class="num">${value}</strong> ${hint && html`<span class="muted">${hint}</span>`}</dd>
  </div>`;
}

/** @param {{part: any}} props */
function Latency({ part }) {
  return html`<td class="num">${duration(part.p50_ns)}</td>
    <td class="num">${duration(part.p95_ns)}</td>
    <td class="num">${duration(part.p99_ns)}</td>`;
}

/** @param {{part: any}} props */
function Errors({ part }) {
  if (part.errors === 0) return html`<td class="num muted">0</td>`;
  return html`<td class="num bad">${count(part.errors)} <span class="small">${percent(part.errors, part.requests)}</span></td>`;
}

/** @type {import('../sort.js').Columns} */
const COLUMNS = {
  ...Object.fromEntries(
    ['service', 'route', 'task', 'requests', 'rate', 'errors', 'p50_ns', 'p95_ns', 'p99_ns'].map((name) => [
      name,
      (/** @type {any} */ row) => row[name],
    ]),
  ),
  seen: (row) => BigInt(row.last_seen_unix_nano),
};

/** @param {(column: string, title: string) => any} head */
const latencyHeads = (head) => [head('p50_ns', 'p50'), head('p95_ns', 'p95'), head('p99_ns', 'p99')];

/** @param {{services: any[]}} props */
function Services({ services }) {
  const { sorted, head } = useSorted(services, COLUMNS);
  return html`<div class="scroll-x" tabindex="0"><table class="table" data-testid="services">
    <thead>
      <tr>
        ${head('service', 'Service', false)}${head('requests', 'Requests')}${head('rate', 'Rate')}${head('errors', 'Errors')}
        ${latencyHeads(head)}${head('seen', 'Last seen')}
      </tr>
    </thead>
    <tbody>
      ${sorted.map(
        (one) => html`<tr key=${one.service} data-service=${one.service}>
          <td><a class="row-link" href=${address('/traces', { service: one.service })}><${Service} name=${one.service} /></a></td>
          <td class="num">${count(one.requests)}</td>
          <td class="num">${rate(one.rate)}</td>
          <${Errors} part=${one} /><${Latency} part=${one} />
          <td class="num muted">${ago(one.last_seen_unix_nano, Date.now())}</td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

/** @param {{routes: any[]}} props */
function Routes({ routes }) {
  const { sorted, head } = useSorted(routes, COLUMNS);
  if (routes.length === 0) return html`<p class="muted pad">No requests in this period.</p>`;
  return html`<div class="scroll-x" tabindex="0"><table class="table" data-testid="routes">
    <thead>
      <tr>
        ${head('route', 'Route', false)}${head('service', 'Service', false)}${head('requests', 'Requests')}${head('rate', 'Rate')}
        ${head('errors', 'Errors')}${latencyHeads(head)}
      </tr>
    </thead>
    <tbody>
      ${sorted.map(
        (one) => html`<tr key=${`${one.service} ${one.route}`}>
          <td><a class="row-link mono" href=${address('/traces', { service: one.service, name: one.route })}><${Text} value=${one.route} limit=${160} dotted /></a></td>
          <td><${Service} name=${one.service} /></td>
          <td class="num">${count(one.requests)}</td>
          <td class="num">${rate(one.rate)}</td>
          <${Errors} part=${one} /><${Latency} part=${one} />
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

const BAD_STATES = new Set(['FAILURE', 'REVOKED', 'REJECTED']);

/** @param {{tasks: any[]}} props */
function Tasks({ tasks }) {
  const { sorted, head } = useSorted(tasks, COLUMNS);
  if (tasks.length === 0) return html`<p class="muted pad">No tasks in this period.</p>`;
  return html`<div class="scroll-x" tabindex="0"><table class="table" data-testid="tasks">
    <thead>
      <tr>
        ${head('task', 'Task', false)}${head('service', 'Service', false)}<th scope="col">States</th>${head('rate', 'Rate')}
        ${latencyHeads(head)}
      </tr>
    </thead>
    <tbody>
      ${sorted.map(
        (one) => html`<tr key=${`${one.service} ${one.task}`}>
          <td><a class="row-link mono" href=${address('/traces', { service: one.service, name: one.task })}><${Text} value=${one.task} limit=${160} dotted /></a></td>
          <td><${Service} name=${one.service} /></td>
          <td class="states">
            ${Object.entries(one.states).map(
              ([
                state,
                tasksIn,
              ]) => html`<span class="tag ${BAD_STATES.has(state) ? 'tag-error' : state === 'SUCCESS' ? 'tag-ok' : 'tag-warn'}"
                ><${Text} value=${state} limit=${24} /> ${count(Number(tasksIn))}</span
              >`,
            )}
          </td>
          <td class="num">${rate(one.rate)}</td>
          <${Latency} part=${one} />
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

/** @param {{series: any}} props */
function Charts({ series }) {
  const { requests, latency } = useMemo(() => {
    const first = milliseconds(series.start_unix_nano) / 1000;
    const times = series.requests.map(
      (/** @type {number} */ _, /** @type {number} */ index) => first + index * series.step_seconds,
    );
    const perSecond = (/** @type {number[]} */ counts) => counts.map((value) => value / series.step_seconds);
    return {
      requests: [times, perSecond(series.requests), perSecond(series.errors)],
      latency: [times, series.p95_ns],
    };
  }, [series]);
  return html`<div class="charts">
    <${Panel} title="Requests per second">
      <${Chart}
        label="Requests and errors per second"
        data=${requests}
        unit=""
        height=${180}
        lines=${[
          { label: 'requests', color: 'var(--line-0)', fill: true },
          { label: 'errors', color: 'var(--bad)' },
        ]}
      />
    <//>
    <${Panel} title="Latency, p95">
      <${Chart} label="95th percentile of latency" data=${latency} unit="ns" height=${180} lines=${[{ label: 'p95', color: 'var(--line-1)', fill: true }]} />
    <//>
  </div>`;
}

/** Says how many rows are shown if there are more. @param {any} overview @param {string} rows */
function leftOut(overview, rows) {
  const shown = overview[rows].length;
  const more = overview.left_out[rows];
  return more > 0 && html`<span class="muted">the most frequent ${count(shown)} of ${count(shown + more)}</span>`;
}

/** Returns whether there were no requests and no tasks. @param {any} overview */
const isIdle = (overview) =>
  overview.tasks.length === 0 && overview.services.every((/** @type {any} */ one) => one.requests === 0);

/** @param {{path: string, query: string}} props */
export function Page({ query }) {
  const window = String(readFilters(query).window ?? '5m');
  const { body, error } = useLive(address('/', { window }));
  const { body: status } = useLive('/status');
  // Services also send telemetry when they start; the first-visit page stays until there is a request or a task.
  const idle = body !== null && isIdle(body);
  const before = useLive(idle ? address('/', { window: MAX_WINDOW }) : null);
  if (!body || !status || (idle && !before.body))
    return error ? html`<${ErrorMessage} error=${error} />` : html`<${Loading} />`;
  if (idle && isIdle(before.body)) return html`<${FirstVisit} status=${status} />`;

  const total = (/** @type {string} */ what) =>
    body.services.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one[what], 0);
  const requests = total('requests');
  const errors = total('errors');
  const slowest = body.services.reduce(
    (/** @type {number | null} */ most, /** @type {any} */ one) =>
      one.requests > 0 ? Math.max(most ?? 0, one.p95_ns ?? 0) : most,
    null,
  );
  return html`
    <div class="title-row">
      <h1>Overview</h1>
      <${Choice}
        label="Time"
        options=${WINDOWS}
        value=${window}
        onChange=${(/** @type {string} */ next) => navigate(address('/', { window: next === '5m' ? '' : next }))}
      />
    </div>
    <${MemoryNote} since=${body.memory_since_unix_nano} from=${body.series.start_unix_nano} />
    <dl class="figures">
      <${Figure} testid="figure-requests" label="Requests" value=${rate(total('rate'))} hint=${`${count(requests)} in total`} />
      <${Figure} testid="figure-errors" label="Errors" value=${percent(errors, requests)} hint=${count(errors)} bad=${errors > 0} />
      <${Figure} testid="figure-latency" label="Slowest service, p95" value=${duration(slowest)} />
      <${Figure} testid="figure-services" label="Services" value=${count(body.services.length)} />
      <${Figure} testid="figure-traces" label="Stored traces" value=${count(status.kept.traces)} hint=${`${count(status.kept.logs)} logs`} />
    </dl>
    <${Charts} series=${body.series} />
    <${Panel} title="Services" actions=${leftOut(body, 'services')}><${Services} services=${body.services} /><//>
    <${Panel} title="Routes" actions=${leftOut(body, 'routes')}><${Routes} routes=${body.routes} /><//>
    <${Panel} title="Tasks" actions=${leftOut(body, 'tasks')}><${Tasks} tasks=${body.tasks} /><//>
  `;
}
