// The head of a column by which a list can be sorted.
import { html, useState } from '../html.js';
import { nextSort, sorted } from '../sort.js';

/** @param {{column: string, title: string, numeric?: boolean, sort: string, onSort: (sort: string) => void}} props */
export function SortHead({ column, title, numeric = false, sort, onSort }) {
  const order = sort === column ? 'ascending' : sort === `-${column}` ? 'descending' : undefined;
  return html`<th scope="col" class=${numeric ? 'num' : ''} aria-sort=${order}>
    <button type="button" class="sort" data-testid=${`sort-${column}`} onClick=${() => onSort(nextSort(column, sort))}>
      ${title}<span aria-hidden="true">${order ? (order === 'ascending' ? ' ↑' : ' ↓') : ''}</span>
    </button>
  </th>`;
}

/**
 * Returns the rows of a table in the order that the user chose, and a function that returns the heads of its columns.
 *
 * @param {any[]} rows
 * @param {import('../sort.js').Columns} columns
 */
export function useSorted(rows, columns) {
  const [sort, setSort] = useState('');
  const head = (/** @type {string} */ column, /** @type {string} */ title, numeric = true) =>
    html`<${SortHead} column=${column} title=${title} numeric=${numeric} sort=${sort} onSort=${setSort} />`;
  return { sorted: sorted(rows, sort, columns), head };
}
