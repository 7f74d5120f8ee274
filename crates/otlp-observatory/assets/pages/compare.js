// Comparison of two traces by path, or of requests and tasks before and after a moment.
import { html } from '../html.js';
import { useCell } from '../cell.js';
import { Choice, Empty, Loading, Panel, ErrorMessage, MemoryNote } from '../components/parts.js';
import { Service, Text } from '../components/text.js';
import { readFilters } from '../filters.js';
import { clock, clockOrDate, count, dateTime, duration, percent, plural, rate } from '../format.js';
import { useLive } from '../live.js';
import { mark, markNow } from '../mark.js';
import { traceOf } from '../query.js';
import { address, isId, navigate, traceAddress } from '../router.js';

/** @type {[string, string][]} */
const WINDOWS = [
  ['1m', '1 min'],
  ['5m', '5 min'],
  ['15m', '15 min'],
  ['1h', '1 h'],
];

/** Indentation of a level in pixels; deep rows are not indented further. */
const INDENT = 14;
const MAX_LEVELS = 20;

/** Relative change above which a figure is coloured. */
const NOTABLE = 0.1;

/** A relative change; more is worse. @param {{value: number | null, neutral?: boolean}} props */
function Change({ value, neutral = false }) {
  if (value === null || value === undefined) return html`<span class="muted">–</span>`;
  const tone = neutral || Math.abs(value) < NOTABLE ? 'muted' : value > 0 ? 'bad' : 'good';
  return html`<span class=${tone}>${value > 0 ? '+' : ''}${count(100 * value)} %</span>`;
}

/** @param {{side: any, traceId: string}} props */
function Side({ side, traceId }) {
  if (!side) return html`<td class="num muted">–</td>`;
  return html`<td class="num">
    ${side.count > 1 && html`<span class="muted">${count(side.count)} × </span>`}
    ${side.errors > 0 && html`<span class="tag tag-error">${plural(side.errors, 'error')}</span> `}
    <a class="inline-link" href=${traceAddress(traceId, side.span_id)}>${duration(side.total_ns)}</a>
  </td>`;
}

/** @param {{name: string, trace: any}} props */
function TraceFact({ name, trace }) {
  return html`<div>
    <dt>${name}</dt>
    <dd>
      <a href=${traceAddress(trace.trace_id)}><${Text} value=${trace.root.name || '(no name)'} limit=${120} /></a>
      <span class="muted">${dateTime(trace.start_unix_nano)} · ${duration(trace.duration_ns)} · ${plural(trace.spans, 'span')}</span>
    </dd>
  </div>`;
}

/** @param {{a: string, b: string}} props */
function Traces({ a, b }) {
  const { body, error } = useLive(address('/compare', { a, b }), { every: 5000 });
  if (!body) return error ? html`<${ErrorMessage} error=${error} />` : html`<${Loading} />`;
  const changeOf = (/** @type {any} */ row) =>
    row.a && row.b && row.a.total_ns > 0 ? row.b.total_ns / row.a.total_ns - 1 : null;
  return html`<dl class="compared">
      <${TraceFact} name="A" trace=${body.a} /><${TraceFact} name="B" trace=${body.b} />
    </dl>
    <div class="scroll-x panel" tabindex="0" role="region" aria-label="Spans of both traces">
      <table class="table" data-testid="compared-spans">
        <thead>
          <tr>
            <th scope="col">Span</th><th scope="col">Service</th><th scope="col" class="num">A</th><th scope="col" class="num">B</th>
            <th scope="col" class="num">Change</th>
          </tr>
        </thead>
        <tbody>
          ${body.spans.map(
            (/** @type {any} */ row, /** @type {number} */ index) => html`<tr key=${index} class=${row.a && row.b ? '' : 'is-new'}>
              <td><span style=${{ paddingLeft: `${INDENT * Math.min(row.depth, MAX_LEVELS)}px` }}><${Text} value=${row.name} limit=${160} /></span></td>
              <td><${Service} name=${row.service} /></td>
              <${Side} side=${row.a} traceId=${body.a.trace_id} /><${Side} side=${row.b} traceId=${body.b.trace_id} />
              <td class="num">${row.a && row.b ? html`<${Change} value=${changeOf(row)} />` : html`<span class="tag tag-warn">only ${row.a ? 'A' : 'B'}</span>`}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
    ${body.omitted > 0 && html`<p class="muted">${plural(body.omitted, 'row')} more in the traces</p>`}`;
}

/** The other traces with the root of `a`, one of which is compared with it. @param {{a: string}} props */
function Candidates({ a }) {
  const { body: found, error } = useLive(address('/traces', { query: `trace=${a}` }), { every: 5000 });
  const root = found?.traces[0]?.root;
  const { body } = useLive(root ? address('/traces', { service: root.service, name: root.name }) : null, { every: 5000 });
  if (error) return html`<${ErrorMessage} error=${error} />`;
  if (found && !root) return html`<${Empty} title="Trace not found."><a href="/traces">All traces</a><//>`;
  if (!body) return html`<${Loading} />`;
  const others = body.traces.filter((/** @type {any} */ trace) => trace.trace_id !== a);
  return html`<${Panel} title="Compare with">
    ${
      others.length === 0
        ? html`<p class="muted pad">No other trace has this root. Paste a trace id above.</p>`
        : html`<ul class="candidates">
          ${others.map(
            (/** @type {any} */ trace) => html`<li key=${trace.trace_id}>
              <a href=${address('/compare', { a, b: trace.trace_id })}><${Text} value=${trace.root.name || '(no name)'} limit=${120} /></a>
              <span class="muted num">${clockOrDate(trace.start_unix_nano)} · ${duration(trace.duration_ns)}</span>
            </li>`,
          )}
        </ul>`
    }
  <//>`;
}

/** @param {{figures: any}} props */
function Figures({ figures }) {
  if (!figures) return html`<td class="num muted">–</td><td class="num muted">–</td><td class="num muted">–</td><td class="num muted">–</td>`;
  return html`<td class="num" title=${rate(figures.rate)}>${count(figures.count)}</td>
    <td class="num ${figures.errors > 0 ? 'bad' : 'muted'}">${figures.errors > 0 ? percent(figures.errors, figures.count) : '0'}</td>
    <td class="num">${duration(figures.p50_ns)}</td><td class="num">${duration(figures.p95_ns)}</td>`;
}

/** @param {{at: string, window: string}} props */
function Times({ at, window }) {
  const marked = useCell(mark);
  const moment = at || marked || window;
  const { body, error } = useLive(address('/compare', { at: moment, window }), { every: 2000 });
  const go = (/** @type {Record<string, string>} */ next) => navigate(address('/compare', { at, window, ...next }));
  /** @type {[string, string][]} */
  const moments = [
    ['1m', '1 min ago'],
    ['5m', '5 min ago'],
    ['15m', '15 min ago'],
  ];
  for (const known of new Set([marked, at])) {
    if (/^[0-9]{16,}$/.test(known)) moments.push([known, clock(known).slice(0, 8)]);
  }
  return html`<div class="actions">
      <${Choice} label="Moment" options=${moments} value=${moment} onChange=${(/** @type {string} */ next) => go({ at: next })} />
      <button type="button" class="button" data-testid="mark" onClick=${() => go({ at: markNow() })}>Mark now</button>
      <${Choice} label="Time on each side" options=${WINDOWS} value=${window} onChange=${(/** @type {string} */ next) => go({ window: next })} />
    </div>
    <${ErrorMessage} error=${error} />
    <${MemoryNote} since=${body?.memory_since_unix_nano} />
    ${
      !body
        ? !error && html`<${Loading} />`
        : body.operations.length === 0
          ? html`<${Empty} title="No requests or tasks in this time."><p>Choose another moment or more time.</p><//>`
          : html`<div class="scroll-x panel" tabindex="0" role="region" aria-label="Requests and tasks">
            <table class="table" data-testid="compared-operations">
              <caption class="pad muted">
                ${duration(body.before_seconds * 1e9)} before and ${duration(body.after_seconds * 1e9)} from ${dateTime(body.at_unix_nano)}
              </caption>
              <thead>
                <tr>
                  <th scope="col">Route or task</th><th scope="col">Service</th>
                  ${['before', 'after'].map(
                    (side) => html`<th scope="col" class="num">Count ${side}</th><th scope="col" class="num">Errors ${side}</th>
                      <th scope="col" class="num">p50 ${side}</th><th scope="col" class="num">p95 ${side}</th>`,
                  )}
                  <th scope="col" class="num">Rate</th><th scope="col" class="num">p50</th><th scope="col" class="num">p95</th>
                </tr>
              </thead>
              <tbody>
                ${body.operations.map(
                  (/** @type {any} */ one) => html`<tr key=${`${one.service} ${one.kind} ${one.name}`}>
                    <td><a class="row-link mono" href=${address('/traces', { service: one.service, name: one.name })}><${Text} value=${one.name} limit=${160} dotted /></a></td>
                    <td><${Service} name=${one.service} /></td>
                    <${Figures} figures=${one.before} /><${Figures} figures=${one.after} />
                    <td class="num"><${Change} value=${one.rate_change} neutral /></td>
                    <td class="num"><${Change} value=${one.p50_change} /></td><td class="num"><${Change} value=${one.p95_change} /></td>
                  </tr>`,
                )}
              </tbody>
            </table>
          </div>`
    }`;
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const filters = readFilters(query);
  const text = (/** @type {string} */ name) => String(filters[name] ?? '');
  const [a, b] = [text('a'), text('b')];
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const id = (/** @type {string} */ name) => {
      const given = String(form.get(name) ?? '').trim();
      return traceOf(given)?.split('/')[2].split('#')[0] ?? given;
    };
    navigate(address('/compare', { a: id('a'), b: id('b') }));
  };
  const field = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ value) =>
    html`<div class="field field-search">
      <label for=${`compare-${name}`}>${label}</label>
      <input id=${`compare-${name}`} name=${name} key=${value} defaultValue=${value} placeholder="trace id" spellcheck=${false} autocomplete="off" data-keep-paste />
    </div>`;
  return html`
    <div class="title-row"><h1>Compare</h1></div>
    <form class="filters" aria-label="Traces to compare" onSubmit=${submit}>
      ${field('a', 'Trace A', a)} ${field('b', 'Trace B', b)}
      <button class="button filters-clear">Compare traces</button>
      ${(a || b) && html`<a class="button filters-clear" href="/compare">Before and after</a>`}
    </form>
    ${
      a && b
        ? html`<${Traces} a=${a} b=${b} />`
        : isId(a || b)
          ? html`<${Candidates} a=${a || b} />`
          : html`<${Times} at=${text('at')} window=${text('window') || '5m'} />`
    }
  `;
}
