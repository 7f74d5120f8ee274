// A trace: the waterfall across services, the details of the selected span, and the logs. The selected span is the
// fragment of the address, so it can be shared.
import { html, useEffect, useRef } from '../html.js';
import { Copy, Empty, Loading, Panel, ErrorMessage } from '../components/parts.js';
import { LogList } from '../components/log-list.js';
import { Service, Text } from '../components/text.js';
import { SpanDetails } from '../components/span-details.js';
import { Waterfall } from '../components/waterfall.js';
import { between, count, duration, dateTime, plural } from '../format.js';
import { useKeys } from '../keys.js';
import { useLive } from '../live.js';
import { address, back, navigate } from '../router.js';
import { plain } from '../text.js';

// Number of spans above which a trace is polled less often.
const LARGE = 1000;

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
        ${trace.dropped_spans > 0 && html`<span class="tag tag-warn">${plural(trace.dropped_spans, 'span')} dropped</span>`}
        ${servicesOf(trace.spans).map(([name, spans]) => html`<${Service} key=${name} name=${name} detail=${count(spans)} />`)}
      </p>
    </div>
    <div class="actions">
      <${Copy} label="Copy link" testid="copy-link" text=${() => location.href} />
      <${Copy} label="Copy as JSON" testid="copy-trace" text=${() => JSON.stringify(whole, null, 2)} />
    </div>
  </header>`;
}

/** @param {{argument: string, path: string, fragment: string}} props */
export function Page({ argument, path, fragment }) {
  const size = useRef(0);
  const { body: trace, error } = useLive(path, { every: size.current > LARGE ? 10_000 : 1000 });
  size.current = trace?.spans.length ?? 0;
  const selected = trace?.spans.find((/** @type {any} */ span) => span.span_id === fragment) ?? null;
  const select = (/** @type {string | null} */ spanId) =>
    navigate(`${path}${spanId ? `#${spanId}` : ''}`, { replace: true });

  const focusDetails = () => document.getElementById('details')?.focus();
  useKeys({
    Escape: [
      'close the span, then the trace',
      () => {
        if (selected) select(null);
        else back('/traces');
      },
    ],
  });
  useEffect(() => {
    if (trace) document.title = `${plain(trace.root?.name ?? 'Trace')} · Observatory`;
  }, [trace?.root?.name]);

  if (!trace) {
    if (!error) return html`<${Loading} />`;
    return html`<${Empty} title="Trace not found.">
      <p>It may have been evicted, or its spans have not arrived yet. This page updates when they arrive.</p>
      <${ErrorMessage} error=${error} />
      <p><a href="/traces">All traces</a></p>
    <//>`;
  }
  return html`<div class="trace" data-testid="trace" data-trace-id=${argument}>
    <p class="crumbs"><a href="/traces">Traces</a> <span class="muted mono">${argument}</span></p>
    <${Head} trace=${trace} />
    <div class="trace-body ${selected ? 'has-details' : ''}">
      <div class="panel"><${Waterfall} trace=${trace} selected=${selected?.span_id ?? null} onSelect=${select} onOpen=${focusDetails} /></div>
      ${selected && html`<${SpanDetails} key=${selected.span_id} trace=${trace} span=${selected} onClose=${() => select(null)} />`}
    </div>
    <${Panel}
      title=${`Logs (${count(trace.logs.length)})`}
      testid="trace-logs"
      actions=${html`<a href=${address('/logs', { trace_id: argument })}>Open on the logs page</a>`}
    >
      ${
        trace.logs.length === 0
          ? html`<p class="muted pad">No log records for this trace.</p>`
          : html`<${LogList}
            label="Logs of the trace"
            logs=${trace.logs.slice(0, MAX_LOGS)}
            time=${(/** @type {any} */ log) => `+${duration(between(trace.start_unix_nano, log.time_unix_nano))}`}
            onSpan=${(/** @type {any} */ log) => select(log.span_id)}
          />`
      }
    <//>
  </div>`;
}
