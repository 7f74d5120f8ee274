// Text from telemetry. Preact escapes it; this component also isolates its direction, shows invisible characters, and
// truncates long text.
import { html, useState } from '../html.js';
import { count } from '../format.js';
import { hueOf } from '../hue.js';
import { addresses, clip, pieces, plain, textOf } from '../text.js';

/** Allows line breaks after each part of a name. @param {string} text */
const breakable = (text) =>
  text.split(/(?<=[._:/])(?=[^._:/])/).map((part, index) => [index > 0 && html`<wbr />`, part]);

/** Makes web addresses links, except one that is cut off. @param {string} text @param {boolean} isCut */
const linked = (text, isCut) =>
  addresses(text).map((part, index, all) =>
    part.url && !(isCut && index === all.length - 1)
      ? html`<a href=${part.url} target="_blank" rel="noopener noreferrer">${part.text}</a>`
      : part.text,
  );

/**
 * @param {object} props
 * @param {unknown} props.value
 * @param {number} [props.limit] maximum number of characters
 * @param {boolean} [props.expand] whether truncated text can be expanded
 * @param {boolean} [props.dotted] whether lines break between the parts of a name
 * @param {boolean} [props.links] whether web addresses are links
 */
export function Text({ value, limit = 300, expand = false, dotted = false, links = false }) {
  const [whole, setWhole] = useState(false);
  const text = textOf(value, expand ? 2 : undefined);
  const shown = whole ? text : clip(text, limit);
  return html`<bdi class="text"
    >${pieces(shown).map((piece) =>
      piece.invisible
        ? html`<span class="invisible" title="invisible character">${piece.text}</span>`
        : links
          ? linked(piece.text, shown.length < text.length)
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

/** A service name with its colour. @param {{name: string, detail?: unknown}} props */
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
  return html`<span class="level level-${known}"><${Text} value=${text || (known === 'unspecified' ? '–' : level)} limit=${12} /></span>`;
}
