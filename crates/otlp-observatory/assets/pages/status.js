// The status of the observatory: memory use, received and evicted telemetry, and forwarding.
import { html, useState } from '../html.js';
import { clear } from '../api.js';
import { Loading, Meter, Panel, ErrorMessage } from '../components/parts.js';
import { importFiles } from '../import.js';
import { Text } from '../components/text.js';
import { bytes, count, dateTime, receiver } from '../format.js';
import { useLive } from '../live.js';

/** @param {{facts: [string, any][]}} props */
function Facts({ facts }) {
  return html`<dl class="status-facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd class="num">${value}</dd></div>`)}</dl>`;
}

/** @param {{forwarding: any}} props */
function Forwarding({ forwarding }) {
  if (!forwarding) return html`<p class="muted pad">Forwarding is off.</p>`;
  const { sent } = forwarding;
  return html`${
    forwarding.last_error &&
    html`<p class="error-message">
      <${Text} value=${forwarding.last_error} limit=${400} expand />
      ${forwarding.failing_since_unix_nano && html` <span>since ${dateTime(forwarding.failing_since_unix_nano)}</span>`}
    </p>`
  }
    <${Facts}
      facts=${[
        ['endpoint', html`<${Text} value=${forwarding.endpoint} limit=${120} />`],
        ['queue', html`<${Meter} label="queue" used=${forwarding.queued_bytes} limit=${forwarding.limit_bytes} />`],
        ['spans sent', count(sent.spans)],
        ['logs sent', count(sent.logs)],
        ['points sent', count(sent.points)],
        ['requests dropped', count(forwarding.dropped_requests)],
        ['items rejected', count(forwarding.rejected_items)],
      ]}
    />`;
}

/** The latest reasons for which the receivers rejected requests. @param {{reasons: any[]}} props */
function Rejections({ reasons }) {
  if (reasons.length === 0) return null;
  return html`<${Panel} title="Rejected requests" testid="rejections">
    <div class="scroll-x" tabindex="0"><table class="table">
      <thead><tr><th scope="col">Reason</th><th scope="col" class="num">Requests</th><th scope="col">Last</th></tr></thead>
      <tbody>
        ${reasons.map(
          (one) => html`<tr>
            <th scope="row"><${Text} value=${one.reason} limit=${200} /></th>
            <td class="num">${count(one.requests)}</td><td>${dateTime(one.last_unix_nano)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
  <//>`;
}

/** Export and import of all telemetry, and a button that removes everything after a second click. */
function Carry() {
  const [asked, setAsked] = useState(false);
  const [failure, setFailure] = useState(/** @type {any} */ (null));
  const remove = () => {
    setAsked(false);
    clear().then(() => setFailure(null), setFailure);
  };
  const choose = async (/** @type {Event} */ event) => {
    const field = /** @type {HTMLInputElement} */ (event.currentTarget);
    await importFiles(field.files ?? []);
    field.value = '';
  };
  return html`<${Panel} title="Export, import and clear" testid="carry">
    <p class="pad">
      <a class="button" href="/export" download>Export all telemetry</a>${' '}
      <button type="button" class="button" data-testid="clear" onClick=${asked ? remove : () => setAsked(true)} onBlur=${() => setAsked(false)}>
        ${asked ? 'Really remove all telemetry?' : 'Clear'}
      </button>
    </p>
    <p class="pad">
      <label
        >Import OTLP/JSON, or drop files on any page:${' '}
        <input type="file" multiple data-testid="import" onChange=${choose} />
      </label>
    </p>
    <${ErrorMessage} error=${failure} />
  <//>`;
}

export function Page() {
  const { body, error } = useLive('/status');
  if (!body) return error ? html`<${ErrorMessage} error=${error} />` : html`<${Loading} />`;
  const { memory, kept, received, repeated, evicted } = body;
  const used = memory.traces_bytes + memory.logs_bytes + memory.metrics_bytes;
  const rows = /** @type {const} */ ([
    ['Spans', kept.spans, received.spans, repeated.spans, evicted.spans, memory.traces_bytes],
    ['Log records', kept.logs, received.logs, repeated.logs, evicted.logs, memory.logs_bytes],
    ['Metric points', kept.points, received.points, repeated.points, evicted.points, memory.metrics_bytes],
  ]);
  return html`
    <h1>Status</h1>
    <${Panel} title="Memory" actions=${html`<${Meter} label="memory" used=${used} limit=${memory.limit_bytes} />`}>
      <div class="scroll-x" tabindex="0"><table class="table" data-testid="kept">
        <thead>
          <tr>
            <th scope="col">Signal</th><th scope="col" class="num">Stored</th><th scope="col" class="num">Received</th>
            <th scope="col" class="num">Repeated</th><th scope="col" class="num">Evicted</th><th scope="col" class="num">Memory</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ([signal, storedCount, receivedCount, repeatedCount, evictedCount, size]) => html`<tr>
              <th scope="row">${signal}</th>
              <td class="num">${count(storedCount)}</td><td class="num">${count(receivedCount)}</td>
              <td class="num">${count(repeatedCount)}</td><td class="num">${count(evictedCount)}</td><td class="num">${bytes(size)}</td>
            </tr>`,
          )}
        </tbody>
      </table></div>
      <${Facts}
        facts=${[
          ['traces', count(kept.traces)],
          ['series', count(kept.series)],
          ['delayed requests', count(body.delayed_requests)],
          ['rejected requests', count(body.refused.requests)],
          ['rejected items', count(body.refused.spans + body.refused.logs + body.refused.points)],
          ['oldest', kept.oldest_unix_nano ? dateTime(kept.oldest_unix_nano) : '–'],
        ]}
      />
    <//>
    <${Carry} />
    <${Rejections} reasons=${body.refused.reasons} />
    <${Panel} title="Forwarding" testid="forwarding"><${Forwarding} forwarding=${body.forwarding} /><//>
    <${Panel} title="Observatory">
      <${Facts}
        facts=${[
          ['version', html`<${Text} value=${body.version} limit=${40} />`],
          ['started', dateTime(body.started_unix_nano)],
          ['OTLP (HTTP and gRPC)', html`<code>${receiver(body.endpoints.http)}</code>${body.endpoints.grpc && html`, <code>${receiver(body.endpoints.grpc)}</code>`}`],
        ]}
      />
    <//>
  `;
}
