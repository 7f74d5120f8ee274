// Computes the positions of the map's nodes and edges with dagre. Pure functions.
import { Graph, layout } from './vendor/dagre.esm.js';
import { clip } from './text.js';

const NODE_HEIGHT = 46;
const CHARACTER = 8.4;
const SMALL_CHARACTER = 6.4;

/** Size of an edge's label. */
export const LABEL = { width: 78, height: 32 };
const LONGEST_NAME = 32;

/** Returns the second line of a node. @param {{system?: string, kind?: string, detail?: string}} node */
export const nodeDetail = ({ system, kind = '', detail }) => nodeName([system ?? kind, detail].filter(Boolean).join(' · '));

/** Returns the possibly truncated name of a node. @param {string} name */
export const nodeName = (name) => (name.length > LONGEST_NAME ? `${clip(name, LONGEST_NAME - 1)}…` : name);

/**
 * @param {{id: string, name: string, system?: string, kind?: string, detail?: string}[]} nodes
 * @param {{from: string, to: string}[]} edges
 * @param {boolean} vertical top to bottom instead of left to right
 */
export function layOutGraph(nodes, edges, vertical) {
  const graph = new Graph({ directed: true, multigraph: false, compound: false });
  graph.setGraph({ rankdir: vertical ? 'TB' : 'LR', nodesep: 28, ranksep: 52, edgesep: 16, marginx: 12, marginy: 12 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const node of nodes) {
    const text = Math.max(nodeName(node.name).length * CHARACTER, nodeDetail(node).length * SMALL_CHARACTER);
    graph.setNode(node.id, { width: Math.max(110, text + 50), height: NODE_HEIGHT });
  }
  const known = new Set(nodes.map(({ id }) => id));
  const drawn = edges.filter(({ from, to }) => known.has(from) && known.has(to));
  for (const { from, to } of drawn) graph.setEdge(from, to, { ...LABEL, labelpos: 'c' });
  layout(graph);
  const { width = 0, height = 0 } = /** @type {any} */ (graph.graph());
  return {
    width,
    height,
    nodes: new Map(
      nodes.map(({ id }) => [
        id,
        /** @type {{x: number, y: number, width: number, height: number}} */ (graph.node(id)),
      ]),
    ),
    edges: new Map(
      drawn.map(({ from, to }) => [
        edgeId(from, to),
        /** @type {{x: number, y: number, points: {x: number, y: number}[]}} */ (graph.edge(from, to)),
      ]),
    ),
  };
}

/** @param {string} from @param {string} to */
export const edgeId = (from, to) => JSON.stringify([from, to]);

/** Returns a smooth SVG path through points. @param {{x: number, y: number}[]} points */
export function curve(points) {
  const at = (/** @type {{x: number, y: number}} */ { x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;
  if (points.length < 3) return `M${points.map(at).join('L')}`;
  let path = `M${at(points[0])}`;
  for (let index = 1; index < points.length - 1; index += 1) {
    const [here, next] = [points[index], points[index + 1]];
    const end = index === points.length - 2 ? next : { x: (here.x + next.x) / 2, y: (here.y + next.y) / 2 };
    path += `Q${at(here)} ${at(end)}`;
  }
  return path;
}
