// Details of a group of equal siblings: how often, how long, and which were the longest and the failed ones.
import { html } from '../html.js';
import { count, duration, plural } from '../format.js';
import { isFailed } from '../waterfall.js';
import { Attributes } from './attributes.js';
import { Service, Text } from './text.js';

/** @typedef {import('../waterfall.js').Row} Row */

const MAX_FAILED = 20;

/** @param {{group: Row, onSelect: (row: Row) => void, onClose: () => void}} props */
export function GroupDetails({ group, onSelect, onClose }) {
  const members = group.members ?? [];
  const durations = members.map(({ start, end }) => end - start);
  const total = durations.reduce((sum, one) => sum + one, 0);
  const longest = members.reduce((most, row) => (row.end - row.start > most.end - most.start ? row : most));
  const facts = {
    spans: count(members.length),
    total: duration(total),
    mean: duration(total / members.length),
    from: duration(group.start),
    to: duration(group.end),
  };
  const link = (/** @type {Row} */ row, /** @type {string} */ text) =>
    html`<li><button type="button" class="link" onClick=${() => onSelect(row)}>${text}</button></li>`;
  return html`<aside
    class="details panel"
    id="details"
    tabindex="-1"
    aria-label="Selected group"
    data-testid="group-details"
  >
    <header class="details-head">
      <h2>${count(members.length)} × <${Text} value=${group.span.name || '(no name)'} limit=${300} expand /></h2>
      <button type="button" class="button icon" aria-label="Close" onClick=${onClose}>×</button>
    </header>
    <p class="details-facts"><${Service} name=${group.span.service} /> <span class="tag">${group.span.kind}</span></p>
    <${Attributes} attributes=${facts} page=${null} />
    <ul class="events">
      ${link(longest, `Longest: ${duration(longest.end - longest.start)}`)}
      ${members
        .filter(isFailed)
        .slice(0, MAX_FAILED)
        .map((row) => link(row, `Error after ${duration(row.end - row.start)}`))}
    </ul>
    <p class="muted small">
      ${plural(members.length, 'sibling')} with the same service, name and kind; unfold the row to see each.
    </p>
  </aside>`;
}
