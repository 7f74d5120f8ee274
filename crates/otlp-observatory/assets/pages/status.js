// What the observatory itself does: what it keeps, what it had to let go, where it forwards to.
import { html } from '../html.js';
import { Loading, Meter, Panel, Refusal } from '../components/parts.js';
import { Text } from '../components/text.js';
import { bytes, count, moment } from '../format.js';
import { useLive } from '../live.js';

/** @param {{facts: [string, any][]}} props */
function Facts({ facts }) {
  return html`<dl class="status-facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd class="num">${value}</dd></div>`)}</dl>`;
}

/** @param {{forwarding: any}} props */
function Forwarding({ forwarding }) {
  if (!forwarding) return html`<p class="muted pad">Nothing is forwarded.</p>`;
  const { sent } = forwarding;
  return html`${
    forwarding.last_error &&
    html`<p class="refusal">
      <${Text} value=${forwarding.last_error} limit=${400} expand />
      ${forwarding.failing_since_unix_nano && html` <span>since ${moment(forwarding.failing_since_unix_nano)}</span>`}
    </p>`
  }
    <${Facts}
      facts=${[
        ['to', html`<${Text} value=${forwarding.endpoint} limit=${120} />`],
        ['waiting', html`<${Meter} label="queue" used=${forwarding.queued_bytes} limit=${forwarding.limit_bytes} />`],
        ['spans sent', count(sent.spans)],
        ['logs sent', count(sent.logs)],
        ['points sent', count(sent.points)],
        ['requests dropped', count(forwarding.dropped_requests)],
        ['items rejected', count(forwarding.rejected_items)],
      ]}
    />`;
}

export function Page() {
  const { body, refusal } = useLive('/status');
  if (!body) return refusal ? html`<${Refusal} refusal=${refusal} />` : html`<${Loading} />`;
  const { memory, kept, received, evicted } = body;
  const used = memory.traces_bytes + memory.logs_bytes + memory.metrics_bytes;
  const rows = /** @type {const} */ ([
    ['Spans', kept.spans, received.spans, evicted.spans, memory.traces_bytes],
    ['Log records', kept.logs, received.logs, evicted.logs, memory.logs_bytes],
    ['Metric points', kept.points, received.points, evicted.points, memory.metrics_bytes],
  ]);
  return html`
    <h1>Status</h1>
    <${Panel} title="Kept in memory" actions=${html`<${Meter} label="memory" used=${used} limit=${memory.limit_bytes} />`}>
      <div class="scroll-x"><table class="table" data-testid="kept">
        <thead>
          <tr>
            <th scope="col">What</th><th scope="col" class="num">Kept</th><th scope="col" class="num">Received</th>
            <th scope="col" class="num">Dropped for newer</th><th scope="col" class="num">Memory</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ([what, keeps, came, went, size]) => html`<tr>
              <th scope="row">${what}</th>
              <td class="num">${count(keeps)}</td><td class="num">${count(came)}</td><td class="num">${count(went)}</td><td class="num">${bytes(size)}</td>
            </tr>`,
          )}
        </tbody>
      </table></div>
      <${Facts}
        facts=${[
          ['traces', count(kept.traces)],
          ['series', count(kept.series)],
          ['requests refused', count(body.refused.requests)],
          ['not fit to keep', count(body.refused.spans + body.refused.logs + body.refused.points)],
          ['oldest', kept.oldest_unix_nano ? moment(kept.oldest_unix_nano) : '–'],
        ]}
      />
    <//>
    <${Panel} title="Forwarding" testid="forwarding"><${Forwarding} forwarding=${body.forwarding} /><//>
    <${Panel} title="Observatory">
      <${Facts}
        facts=${[
          ['version', html`<${Text} value=${body.version} limit=${40} />`],
          ['started', moment(body.started_unix_nano)],
          ['OTLP over HTTP', html`<code>${body.endpoints.http}</code>`],
          ['OTLP over gRPC', html`<code>${body.endpoints.grpc ?? 'off'}</code>`],
        ]}
      />
    <//>
  `;
}
