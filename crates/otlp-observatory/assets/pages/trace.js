// A trace: the waterfall across services, the details of the selected span, and the logs. The selected span is the
// fragment of the address, so it can be shared.
import { html, useEffect, useMemo, useRef, useState } from '../html.js';
import { Copy, Empty, Loading, Panel, ErrorMessage } from '../components/parts.js';
import { GroupDetails } from '../components/group-details.js';
import { LogList } from '../components/log-list.js';
import { Service, Text } from '../components/text.js';
import { SpanDetails } from '../components/span-details.js';
import { FindBar } from '../components/trace-tools.js';
import { Waterfall } from '../components/waterfall.js';
import { find } from '../find.js';
import { between, count, duration, dateTime, offset, plural } from '../format.js';
import { useKeys } from '../keys.js';
import { backLinksOf } from '../links.js';
import { useLive } from '../live.js';
import { address, back, navigate } from '../router.js';
import { instanceNames } from '../services.js';
import { plain } from '../text.js';
import { isFailed, layOut, logsByRow, next } from '../waterfall.js';

// Number of spans above which a trace is polled less often.
const LARGE = 1000;

const UNCHANGING_MS = 3_600_000;

// Maximum number of log records; the logs page shows all.
const MAX_LOGS = 200;

/**
 * Returns the number of spans of each service, in order of appearance.
 *
 * @param {any[]} spans
 * @returns {[string, number][]}
 */
function servicesOf(spans) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { service } of spans) counts.set(service, (counts.get(service) ?? 0) + 1);
  return [...counts];
}

/** @param {{trace: any}} props */
function Head({ trace }) {
  const errors = trace.spans.filter((/** @type {any} */ span) => span.status === 'error').length;
  const { generation: _, ...whole } = trace;
  return html`<header class="trace-head">
    <div>
      <h1><${Text} value=${trace.root?.name || '(no name)'} limit=${200} expand /></h1>
      <p class="facts">
        <strong class="num">${duration(trace.duration_ns)}</strong>
        <span>${dateTime(trace.start_unix_nano)}</span>
        <span>${plural(trace.spans.length, 'span')}</span>
        ${errors > 0 && html`<span class="tag tag-error">${plural(errors, 'error')}</span>`}
        ${
          trace.skewed_spans > 0 &&
          html`<span class="tag tag-warn">${plural(trace.skewed_spans, 'span')} with another clock</span>`
        }
        ${trace.dropped_spans > 0 && html`<span class="tag tag-warn">${plural(trace.dropped_spans, 'span')} dropped</span>`}
        ${servicesOf(trace.spans).map(([name, spans]) => html`<${Service} key=${name} name=${name} detail=${count(spans)} />`)}
      </p>
    </div>
    <div class="actions">
      <a class="button" href=${address('/compare', { a: trace.trace_id })}>Compare</a>
      <${Copy} label="Copy link" testid="copy-link" text=${() => location.href} />
      <${Copy} label="Copy as JSON" testid="copy-trace" text=${() => JSON.stringify(whole, null, 2)} />
    </div>
  </header>`;
}

/**
 * @param {object} props
 * @param {any} props.trace
 * @param {string} props.path
 * @param {boolean} props.aligned whether differences of clocks are corrected
 * @param {string} props.fragment key of the selected row
 */
function Trace({ trace, path, aligned, fragment }) {
  const [query, setQuery] = useState('');
  const [only, setOnly] = useState(false);
  const rows = useMemo(() => layOut(trace.spans, trace.start_unix_nano), [trace]);
  const logs = useMemo(() => logsByRow(rows, trace.logs), [rows]);
  const { body: attributes } = useLive('/attribute-names', { every: UNCHANGING_MS });
  const matches = useMemo(() => find(rows, query, attributes?.names), [rows, query, attributes]);
  const { body: links } = useLive(`${path}/links`, { every: 30_000 });
  const backLinks = useMemo(() => backLinksOf(rows, trace.trace_id, links?.linked_from ?? []), [rows, links]);
  const serviceOf = useMemo(() => {
    const instanceOf = instanceNames(trace.spans);
    return (/** @type {any} */ span) => [span.service, instanceOf(span) ?? []].flat().join(' · ');
  }, [trace]);
  const selected = useMemo(() => {
    const isSelected = (/** @type {import('../waterfall.js').Row | null} */ row) => row?.key === fragment;
    return rows.find(isSelected) ?? rows.find(({ group }) => isSelected(group))?.group ?? null;
  }, [rows, fragment]);

  const base = aligned ? `${path}?align=clocks` : path;
  const select = (/** @type {import('../waterfall.js').Row | null | undefined} */ row) =>
    navigate(row ? `${base}#${row.key}` : base, { replace: true });
  const go = (/** @type {import('../waterfall.js').Row[]} */ candidates) => (/** @type {1 | -1} */ step) => {
    const row = next(candidates, selected, step);
    if (row) select(row);
  };
  const goToMatch = go(matches);
  const goToError = (/** @type {1 | -1} */ step) => {
    // Errors that are no matches would stay hidden.
    setOnly(false);
    go(rows.filter(isFailed))(step);
  };
  const toggleClocks = () => navigate(`${aligned ? path : `${path}?align=clocks`}${location.hash}`);
  useKeys({
    e: ['next error', () => goToError(1)],
    E: ['previous error', () => goToError(-1)],
    n: ['next match', () => goToMatch(1)],
    N: ['previous match', () => goToMatch(-1)],
    f: ['only matches', () => setOnly(!only)],
    a: ['align clocks', toggleClocks],
    Escape: [
      'close the span, then the trace',
      () => {
        if (selected) select(null);
        else back('/traces');
      },
    ],
  });
  useEffect(() => {
    document.title = `${plain(trace.root?.name ?? 'Trace')} · Observatory`;
  }, [trace.root?.name]);

  return html`<div class="trace" data-testid="trace" data-trace-id=${trace.trace_id}>
    <p class="crumbs"><a href="/traces">Traces</a> <span class="muted mono">${trace.trace_id}</span></p>
    <${Head} trace=${trace} />
    <div class="trace-body ${selected ? 'has-details' : ''}">
      <div class="panel">
        <${Waterfall}
          trace=${trace}
          rows=${rows}
          selected=${selected}
          matches=${matches}
          only=${only && query.trim() !== ''}
          logs=${logs}
          backLinks=${backLinks}
          serviceOf=${serviceOf}
          clocks=${{ aligned, toggle: toggleClocks }}
          onSelect=${select}
          onError=${goToError}
          onFind=${setQuery}
          onOpen=${() => document.getElementById('details')?.focus()}
          findBar=${html`<${FindBar}
            query=${query}
            onQuery=${setQuery}
            matches=${matches.length}
            position=${selected ? matches.indexOf(selected) + 1 : 0}
            onStep=${goToMatch}
            only=${only}
            onOnly=${() => setOnly(!only)}
          />`}
        />
      </div>
      ${
        selected?.members &&
        html`<${GroupDetails} key=${selected.key} group=${selected} onSelect=${select} onClose=${() => select(null)} />`
      }
      ${
        selected &&
        !selected.members &&
        html`<${SpanDetails}
          key=${selected.key}
          trace=${trace}
          row=${selected}
          logs=${logs.get(selected) ?? []}
          backLinks=${backLinks.get(selected.key) ?? []}
          onClose=${() => select(null)}
        />`
      }
    </div>
    <${Panel}
      title=${`Logs (${count(trace.logs.length)})`}
      testid="trace-logs"
      actions=${html`<a href=${address('/logs', { trace_id: trace.trace_id })}>Open on the logs page</a>`}
    >
      ${
        trace.logs.length === 0
          ? html`<p class="muted pad">No log records for this trace.</p>`
          : html`<${LogList}
            label="Logs of the trace"
            logs=${trace.logs.slice(0, MAX_LOGS)}
            time=${(/** @type {any} */ log) => offset(between(trace.start_unix_nano, log.time_unix_nano))}
            onSpan=${(/** @type {any} */ log) => select(rows.find((row) => logs.get(row)?.includes(log)))}
          />`
      }
    <//>
  </div>`;
}

/** @param {{argument: string, path: string, query: string, fragment: string}} props */
export function Page({ path, query, fragment }) {
  const size = useRef(0);
  const aligned = new URLSearchParams(query).get('align') === 'clocks';
  const every = size.current > LARGE ? 10_000 : 1000;
  const { body: trace, error } = useLive(aligned ? `${path}?align=clocks` : path, { every });
  size.current = trace?.spans.length ?? 0;
  if (trace) return html`<${Trace} trace=${trace} path=${path} aligned=${aligned} fragment=${fragment} />`;
  if (!error) return html`<${Loading} />`;
  return html`<${Empty} title="Trace not found." page>
    <p>It may have been evicted, or its spans have not arrived yet. This page updates when they arrive.</p>
    <${ErrorMessage} error=${error} />
    <p><a href="/traces">All traces</a></p>
  <//>`;
}
