// Orders of tables whose rows are all on the page. Pure functions.

/** @typedef {Record<string, (row: any) => string | number | bigint | null>} Columns */

/**
 * Returns the order after a click: first descending, then ascending, then the order of the list itself.
 *
 * @param {string} column
 * @param {string} sort the column of the current order, with a minus sign if it is descending
 */
export const nextSort = (column, sort) => (sort === `-${column}` ? column : sort === column ? '' : `-${column}`);

/**
 * Returns the rows in an order; those without a value come last.
 *
 * @template T
 * @param {T[]} rows
 * @param {string} sort
 * @param {Columns} columns the value of each column
 */
export function sorted(rows, sort, columns) {
  const value = columns[sort.replace(/^-/, '')];
  if (!value) return rows;
  const sign = sort.startsWith('-') ? -1 : 1;
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    return a < b ? -sign : a > b ? sign : 0;
  });
}
