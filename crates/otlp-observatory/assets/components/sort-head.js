// The head of a column by which a list can be sorted.
import { html } from '../html.js';

/**
 * Returns the order after a click: first descending, then ascending, then the order of the list itself.
 *
 * @param {string} column
 * @param {string} sort the column of the current order, with a minus sign if it is descending
 */
export const nextSort = (column, sort) => (sort === `-${column}` ? column : sort === column ? '' : `-${column}`);

/** @param {{column: string, title: string, numeric?: boolean, sort: string, onSort: (sort: string) => void}} props */
export function SortHead({ column, title, numeric = false, sort, onSort }) {
  const order = sort === column ? 'ascending' : sort === `-${column}` ? 'descending' : undefined;
  return html`<th scope="col" class=${numeric ? 'num' : ''} aria-sort=${order}>
    <button type="button" class="sort" data-testid=${`sort-${column}`} onClick=${() => onSort(nextSort(column, sort))}>
      ${title}<span aria-hidden="true">${order ? (order === 'ascending' ? ' ↑' : ' ↓') : ''}</span>
    </button>
  </th>`;
}
