// Telemetry's text on the page. Preact escapes it; here it is also kept from turning its surroundings about, made to
// show what cannot be seen, and cut where it would drown the rest.
import { html, useState } from '../html.js';
import { count } from '../format.js';
import { hueOf } from '../hue.js';
import { clip, pieces, plain, textOf } from '../text.js';

/** A line may end after each part of a name. @param {string} text */
const breakable = (text) =>
  text.split(/(?<=[._:/])(?=[^._:/])/).map((part, index) => [index > 0 && html`<wbr />`, part]);

/**
 * @param {object} props
 * @param {unknown} props.value
 * @param {number} [props.limit] how many characters are shown
 * @param {boolean} [props.expand] what is cut can be shown on demand
 * @param {boolean} [props.dotted] a name of parts, which is broken between them rather than within
 */
export function Text({ value, limit = 300, expand = false, dotted = false }) {
  const [whole, setWhole] = useState(false);
  const text = textOf(value, expand ? 2 : undefined);
  const shown = whole ? text : clip(text, limit);
  return html`<bdi class="text"
    >${pieces(shown).map((piece) =>
      piece.unseen
        ? html`<span class="unseen" title="a character that cannot be seen">${piece.text}</span>`
        : dotted
          ? breakable(piece.text)
          : piece.text,
    )}${shown.length < text.length && !expand && '…'}</bdi
  >${
    expand &&
    text.length > limit &&
    html` <button type="button" class="link" onClick=${() => setWhole(!whole)}>
    ${whole ? 'show less' : `show all ${count(text.length)} characters`}
  </button>`
  }`;
}

/** A service's name with its colour. @param {{name: string, detail?: unknown}} props */
export function Service({ name, detail }) {
  return html`<span class="service" style=${{ '--hue': hueOf(name) }} title=${plain(name)}
    ><${Text} value=${name || 'unknown service'} limit=${60} />${
      detail !== undefined && html`<span class="service-detail">${detail}</span>`
    }</span
  >`;
}

/** @param {{level: string, text?: string}} props */
export function Level({ level, text }) {
  const known = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'].includes(level) ? level : 'unspecified';
  return html`<span class="level level-${known}"><${Text} value=${text || level || '–'} limit=${12} /></span>`;
}
