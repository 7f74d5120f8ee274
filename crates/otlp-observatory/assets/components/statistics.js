// Statistics of the trace by service and name. A name leads to its spans in the waterfall.
import { html, useState } from '../html.js';
import { count, duration, percent } from '../format.js';
import { Service, Text } from './text.js';

const COLUMNS = /** @type {const} */ ([
  ['count', 'Count'],
  ['errors', 'Errors'],
  ['total', 'Total'],
  ['self', 'Self'],
  ['critical', 'Critical path'],
  ['max', 'Longest'],
]);

/**
 * @param {object} props
 * @param {import('../statistics.js').Statistic[]} props.statistics
 * @param {number} props.whole duration of the trace
 * @param {(name: string) => void} props.onFind
 */
export function Statistics({ statistics, whole, onFind }) {
  const [column, setColumn] = useState('self');
  const sorted = statistics.toSorted((/** @type {any} */ one, /** @type {any} */ other) => other[column] - one[column]);
  return html`<div class="scroll-x trace-statistics" tabindex="0" role="region" aria-label="Statistics by name">
    <table class="table" data-testid="statistics">
      <thead><tr>
        <th scope="col">Span</th>
        <th scope="col">Service</th>
        ${COLUMNS.map(
          ([name, title]) => html`<th scope="col" class="num" aria-sort=${name === column ? 'descending' : undefined}>
            <button type="button" class="sort" onClick=${() => setColumn(name)}>
              ${title}${name === column && html`<span aria-hidden="true"> ▾</span>`}
            </button>
          </th>`,
        )}
      </tr></thead>
      <tbody>${sorted.map(
        (one) => html`<tr key=${`${one.service} ${one.name}`}>
          <th scope="row">
            <button type="button" class="row-link" onClick=${() => onFind(one.name)}>
              <${Text} value=${one.name || '(no name)'} limit=${120} />
            </button>
          </th>
          <td><${Service} name=${one.service} /></td>
          <td class="num">${count(one.count)}</td>
          <td class="num ${one.errors > 0 ? 'bad' : 'muted'}">${count(one.errors)}</td>
          <td class="num">${duration(one.total)}</td>
          <td class="num">${duration(one.self)} <span class="muted">${percent(one.self, whole)}</span></td>
          <td class="num">${duration(one.critical)} <span class="muted">${percent(one.critical, whole)}</span></td>
          <td class="num">${duration(one.max)}</td>
        </tr>`,
      )}</tbody>
    </table>
  </div>`;
}
