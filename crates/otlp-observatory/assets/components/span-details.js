// Details of the selected span: attributes, events, exceptions, links and logs.
import { html } from '../html.js';
import { between, count, duration, dateTime, offset } from '../format.js';
import { address, isId, traceAddress } from '../router.js';
import { textOf } from '../text.js';
import { Attributes } from './attributes.js';
import { Code, Stack } from './code.js';
import { Copy } from './parts.js';
import { LogList } from './log-list.js';
import { Service, Text } from './text.js';

// Maximum number of events, logs and links; a span can have thousands.
const MAX_EVENTS = 100;

const QUERY = ['db.query.text', 'db.statement'];

/** @param {{title: string, size?: number, open?: boolean, children: any}} props */
function Section({ title, size, open = true, children }) {
  return html`<details class="section" open=${open}>
    <summary>${title}${size !== undefined && html` <span class="muted">${count(size)}</span>`}</summary>
    ${children}
  </details>`;
}

/** @param {{event: any, start: string}} props */
function Event({ event, start }) {
  const {
    'exception.type': type,
    'exception.message': message,
    'exception.stacktrace': stack,
    ...rest
  } = event.attributes ?? {};
  const isException = event.name === 'exception';
  return html`<li class="event ${isException ? 'event-exception' : ''}" data-testid=${isException ? 'exception' : 'event'}>
    <p class="event-head">
      <strong><${Text} value=${isException && type ? type : event.name} /></strong>
      <span class="muted num">${offset(between(start, event.time_unix_nano))}</span>
    </p>
    ${message && html`<p><${Text} value=${message} limit=${1000} expand links /></p>`}
    ${stack && html`<${Stack} text=${textOf(stack)} />`}
    ${Object.keys(rest).length > 0 && html`<${Attributes} attributes=${rest} page=${null} />`}
  </li>`;
}

/**
 * A linked span, or a span that has the link. A link within the trace shows the span's id.
 *
 * @param {{link: any, here: string}} props
 */
function Link({ link, here }) {
  const id = link.trace_id === here ? link.span_id : link.trace_id;
  return html`<li class="event">
    <p class="event-head">
      ${
        isId(link.trace_id)
          ? html`<a href=${traceAddress(link.trace_id, link.span_id)}
            >${link.name && html`<${Text} value=${link.name} limit=${120} /> `}<span class="mono">${id}</span></a
          >`
          : html`<${Text} value=${link.trace_id} />`
      }
      ${link.service && html`<${Service} name=${link.service} />`}
    </p>
    ${Object.keys(link.attributes ?? {}).length > 0 && html`<${Attributes} attributes=${link.attributes} page=${null} />`}
  </li>`;
}

/**
 * @param {object} props
 * @param {any} props.trace
 * @param {import('../waterfall.js').Row} props.row
 * @param {any[]} props.logs
 * @param {import('../links.js').BackLink[]} props.backLinks
 * @param {() => void} props.onClose
 */
export function SpanDetails({ trace, row, logs, backLinks, onClose }) {
  const { span } = row;
  const query = QUERY.map((name) => span.attributes[name]).find((value) => typeof value === 'string');
  const start = duration(between(trace.start_unix_nano, span.start_unix_nano));
  return html`<aside
    class="details panel"
    id="details"
    tabindex="-1"
    aria-label="Selected span"
    data-testid="span-details"
    data-span-id=${span.span_id}
  >
    <header class="details-head">
      <h2><${Text} value=${span.name || '(no name)'} limit=${300} expand /></h2>
      <button type="button" class="button icon" aria-label="Close" onClick=${onClose}>×</button>
    </header>
    <p class="details-facts">
      <${Service} name=${span.service} />
      <span class="tag">${span.kind}</span>
      ${span.status !== 'unset' && html`<span class="tag tag-${span.status === 'error' ? 'error' : 'ok'}">${span.status}</span>`}
      <span class="num"><strong>${duration(span.duration_ns)}</strong> <span class="muted">from ${start}</span></span>
    </p>
    ${
      span.status_message &&
      html`<p class="error-message"><${Text} value=${span.status_message} limit=${1000} expand links /></p>`
    }
    <${Code} attributes=${span.attributes} />
    ${
      query &&
      html`<pre class="query" tabindex="0" role="region" aria-label="Query" data-testid="sql"
        ><${Text} value=${query} limit=${4000} expand /></pre>`
    }
    ${
      span.events.length > 0 &&
      html`<${Section} title="Events" size=${span.events.length}>
      <ul class="events">
        ${span.events
          .slice(0, MAX_EVENTS)
          .map((/** @type {any} */ event) => html`<${Event} event=${event} start=${span.start_unix_nano} />`)}
      </ul>
      ${span.events.length > MAX_EVENTS && html`<p class="muted">and ${count(span.events.length - MAX_EVENTS)} more in the JSON</p>`}
    <//>`
    }
    ${
      logs.length > 0 &&
      html`<${Section} title="Logs" size=${logs.length}>
      <${LogList}
        label="Logs of the span"
        logs=${logs.slice(0, MAX_EVENTS)}
        time=${(/** @type {any} */ log) => offset(between(trace.start_unix_nano, log.time_unix_nano))}
      />
      <p>
        <a data-testid="span-logs" href=${address('/logs', { trace_id: trace.trace_id, span_id: span.span_id })}
          >Open on the logs page</a
        >
      </p>
    <//>`
    }
    <${Section} title="Attributes" size=${Object.keys(span.attributes).length}><${Attributes} attributes=${span.attributes} /><//>
    ${[
      ['Links', span.links],
      ['Linked from', backLinks],
    ].map(
      ([title, links]) =>
        links.length > 0 &&
        html`<${Section} title=${title} size=${links.length}>
            <ul class="events">
              ${links
                .slice(0, MAX_EVENTS)
                .map((/** @type {any} */ link) => html`<${Link} link=${link} here=${trace.trace_id} />`)}
            </ul>
          <//>`,
    )}
    <${Section} title="Span" open=${false}>
      <${Attributes}
        page=${null}
        attributes=${{
          span: span.span_id,
          parent: span.parent_span_id
            ? `${span.parent_span_id}${span.missing_parent ? ' (not received)' : ''}`
            : 'none',
          start: dateTime(span.start_unix_nano),
          ...(span.clock_offset_ns ? { clock: `seems to be off by ${duration(-span.clock_offset_ns)}` } : {}),
          scope: span.scope,
        }}
      />
    <//>
    <${Section} title="Resource" size=${Object.keys(span.resource).length} open=${false}><${Attributes} attributes=${span.resource} page=${null} /><//>
    <p class="details-actions"><${Copy} label="Copy span as JSON" testid="copy-span" text=${() => JSON.stringify(span, null, 2)} /></p>
  </aside>`;
}
