// Selects the part of the service map that is drawn. Pure functions.
import { rate } from './format.js';

const CLIENTS = 'external:clients';

/** Returns edges by number of calls, in descending order. @param {any[]} edges @returns {any[]} */
export const byCalls = (edges) => [...edges].sort((one, other) => other.calls - one.calls);

/**
 * Returns at most `most` edges and their nodes: edges between services first, then those with most calls. If there are
 * more, calls by untraced clients become a `detail` of the called service.
 *
 * @param {{nodes: any[], edges: any[], left_out: {edges: number}}} map
 * @param {number} most
 * @returns {{nodes: any[], edges: any[], total: number}} `total` includes edges that the server left out
 */
export function drawn({ nodes, edges, left_out: leftOut }, most) {
  const total = edges.length + leftOut.edges;
  if (total <= most) return { nodes, edges, total };
  const isService = (/** @type {string} */ id) => id.startsWith('service:');
  const rank = (/** @type {any} */ { from, to }) => (isService(from) && isService(to) ? 0 : 1);
  const clients = new Map(edges.filter(({ from }) => from === CLIENTS).map((edge) => [edge.to, edge]));
  const shown = byCalls(edges.filter(({ from }) => from !== CLIENTS))
    .sort((one, other) => rank(one) - rank(other))
    .slice(0, most);
  const ids = new Set(shown.flatMap(({ from, to }) => [from, to]));
  return {
    total,
    edges: shown,
    nodes: nodes
      .filter(({ id }) => ids.has(id))
      .map((node) => (clients.has(node.id) ? { ...node, detail: `clients ${rate(clients.get(node.id).rate)}` } : node)),
  };
}

/** Returns the filters of a node's traces; null if there are none. @param {any} node */
export function filtersOf({ kind, name, attributes }) {
  if (kind === 'service') return { service: name };
  const filters = Object.entries(attributes ?? {}).map(([key, value]) => `${key}=${value}`);
  return filters.length > 0 ? { attribute: filters } : null;
}
