// Filters are query parameters of the address, with the names in the JSON API, so a filtered page can be shared. Pure
// functions.
import { address } from './router.js';

/** @typedef {Record<string, string | string[]>} Filters */

/** Parameters that may be repeated. */
const REPEATABLE = new Set(['attribute']);

/** @param {string} query @returns {Filters} */
export function readFilters(query) {
  /** @type {Filters} */
  const filters = {};
  const parameters = new URLSearchParams(query);
  for (const name of new Set(parameters.keys())) {
    const values = parameters.getAll(name).filter((value) => value !== '');
    if (values.length > 0) filters[name] = REPEATABLE.has(name) ? values : values[values.length - 1];
  }
  return filters;
}

/**
 * Returns the filters with the filter `name` changed; an empty `value` removes the filter.
 *
 * @param {Filters} filters
 * @param {string} name
 * @param {string | string[]} value
 */
export function withFilter(filters, name, value) {
  const { [name]: _, ...rest } = filters;
  return value.length === 0 ? rest : { ...rest, [name]: value };
}

/** @param {string} path @param {Filters} filters */
export const filterAddress = (path, filters) => address(path, filters);
