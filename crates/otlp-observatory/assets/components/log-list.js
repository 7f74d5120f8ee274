// A list of log records. A line shows level, service and message, and expands to the whole record.
import { Component, html } from '../html.js';
import { clockOrDate, dateTime } from '../format.js';
import { address, isId, traceAddress } from '../router.js';
import { instanceNames } from '../services.js';
import { indentedJson, textOf } from '../text.js';
import { Attributes } from './attributes.js';
import { Code, Stack } from './code.js';
import { Copy } from './parts.js';
import { Level, Service, Text } from './text.js';

/** Returns the stack trace of the record's exception. @param {any} log */
const stackOf = (log) => log.attributes?.['exception.stacktrace'];

/** Returns whether a record has a message; events may have none. @param {any} log */
const hasBody = ({ body }) => body !== null && body !== undefined && body !== '';

/** Attributes that the line omits because they are the same in every record or shown elsewhere. */
const COMMON = /^(code|thread|exception|log|otel|process|trace_|span_)/;

const MAX_INLINE = 4;

/** Returns the attributes that are shown in the line. @param {any} log @returns {[string, unknown][]} */
function inlineAttributes(log) {
  return Object.entries(log.attributes ?? {})
    .filter(([name, value]) => !COMMON.test(name) && typeof value !== 'object')
    .slice(0, MAX_INLINE);
}

/** @param {{log: any}} props */
function Details({ log }) {
  const facts = [
    ['time', dateTime(log.time_unix_nano)],
    ['service', log.service],
    ['logger', log.scope],
    ['event', log.event_name],
    ['trace', log.trace_id],
    ['span', log.span_id],
  ].filter(([, value]) => value);
  const stack = stackOf(log);
  const body = (typeof log.body === 'string' && indentedJson(log.body)) || log.body;
  return html`<div class="log-whole">
    ${hasBody(log) && html`<pre class="log-body"><${Text} value=${body} limit=${4000} expand links /></pre>`}
    <div class="log-actions">
      ${isId(log.trace_id) && html`<a class="button" href=${traceAddress(log.trace_id, log.span_id)}>Open trace</a>`}
      ${
        isId(log.trace_id) &&
        html`<a class="button" href=${address('/logs', { trace_id: log.trace_id })}>Logs of the trace</a>`
      }
      <${Copy} label="Copy as JSON" text=${() => JSON.stringify(log, null, 2)} />
    </div>
    ${stack && html`<h2 class="label">Exception</h2><${Stack} text=${textOf(stack)} />`}
    <${Code} attributes=${log.attributes} />
    <div class="log-facts">
      <div><h2 class="label">Attributes</h2><${Attributes} attributes=${log.attributes} page="/logs" /></div>
      <div><h2 class="label">Record</h2><${Attributes} attributes=${Object.fromEntries(facts)} page=${null} /></div>
      <div><h2 class="label">Resource</h2><${Attributes} attributes=${log.resource} page=${null} /></div>
    </div>
  </div>`;
}

/**
 * A record. A line is rendered again only if its props change, because records do not change.
 *
 * Props: `log`; `instance` of its service, if the list has several; `time(log)`, which returns the text of the time column;
 * `onSpan(log)`, which selects the record's span on the same page.
 */
class Line extends Component {
  state = { open: false };

  /** @param {any} props @param {any} state */
  shouldComponentUpdate(props, state) {
    const { log, instance, time, onSpan } = this.props;
    if (instance !== props.instance) return true;
    return log !== props.log || time !== props.time || onSpan !== props.onSpan || state.open !== this.state.open;
  }

  /** @param {any} props @param {{open: boolean}} state */
  render({ log, instance, time, onSpan }, { open }) {
    const level = log.level ?? '';
    return html`<li class="log log-${/^[a-z]+$/.test(level) ? level : 'unspecified'} ${open ? 'is-open' : ''}" data-testid="log-row" data-sequence=${log.sequence}>
    <div class="log-line">
      <button type="button" class="log-toggle" data-row aria-expanded=${open} onClick=${() => this.setState({ open: !open })}>
        <time class="log-time" title=${dateTime(log.time_unix_nano)}>${time ? time(log) : clockOrDate(log.time_unix_nano)}</time>
        <${Level} level=${level} text=${log.severity_text} />
        <${Service} name=${log.service} detail=${instance ?? undefined} />
        <span class="log-text"
          >${log.event_name && html`<span class="tag"><${Text} value=${log.event_name} limit=${80} dotted /></span> `}${
            hasBody(log)
              ? html`<${Text} value=${log.body} limit=${400} />`
              : !log.event_name && html`<span class="muted">no message</span>`
          }${inlineAttributes(log).map(
            ([name, value]) =>
              html`<span class="log-attribute"> <${Text} value=${name} limit=${40} />=<${Text} value=${value} limit=${60} /></span>`,
          )}</span
        >
      </button>
      ${
        isId(log.trace_id) &&
        html`<a
        class="log-trace"
        data-testid="log-trace"
        href=${traceAddress(log.trace_id, log.span_id)}
        onClick=${
          onSpan &&
          log.span_id &&
          ((/** @type {Event} */ event) => {
            event.preventDefault();
            onSpan(log);
          })
        }
        >${onSpan ? 'span' : 'trace'}</a
      >`
      }
    </div>
    ${open && html`<${Details} log=${log} />`}
  </li>`;
  }
}

/** @param {{logs: any[], time?: (log: any) => string, onSpan?: (log: any) => void, label?: string}} props */
export function LogList({ logs, time, onSpan, label = 'Log records' }) {
  const instanceOf = instanceNames(logs);
  return html`<ol class="logs" aria-label=${label} data-testid="logs">
    ${logs.map(
      (log) =>
        html`<${Line} key=${log.sequence} log=${log} instance=${instanceOf(log)} time=${time} onSpan=${onSpan} />`,
    )}
  </ol>`;
}
