// The service map: calls between services, databases, queues and external hosts, with rate, errors and latency, as a
// drawing and as a table.
import { html, useEffect, useMemo, useState } from '../html.js';
import { Choice, Empty, Loading, Panel, ErrorMessage } from '../components/parts.js';
import { Text } from '../components/text.js';
import { readFilters } from '../filters.js';
import { count, duration, percent, rate } from '../format.js';
import { LABEL, curve, edgeId, layOutGraph, nodeName } from '../graph.js';
import { hueOf } from '../hue.js';
import { useLive } from '../live.js';
import { address, navigate } from '../router.js';
import { plain } from '../text.js';

/** @type {[string, string][]} */
const WINDOWS = [
  ['5m', '5 min'],
  ['15m', '15 min'],
  ['1h', '1 h'],
];

/** Minimum scale of a map that is wider than the page; a map that does not fit at this scale scrolls. */
const LEAST_SCALE = 0.7;

/** Maximum number of edges that are drawn; the table lists all. */
const MAX_EDGES = 80;

const NARROW = '(max-width: 760px)';

/** SVG path of each kind of node, in a box of 16 by 16. */
const ICONS = /** @type {Record<string, string>} */ ({
  service: 'M2 3h12v4H2zM2 9h12v4H2zM4.5 5h1M4.5 11h1',
  database: 'M2.5 4c0-3 11-3 11 0v8c0 3-11 3-11 0zM2.5 4c0 3 11 3 11 0M2.5 8c0 3 11 3 11 0',
  queue: 'M1.5 4h3.5v8H1.5zM6.5 4h3v8h-3zM11 4h3.5v8H11z',
  external: 'M8 1.5a6.5 6.5 0 1 0 .01 0M1.5 8h13M8 1.5c-4 4-4 9 0 13M8 1.5c4 4 4 9 0 13',
  client: 'M8 8.2a3.2 3.2 0 1 0-.01 0M2.5 14.5c0-6 11-6 11 0',
});

/** Returns the address of a node's traces; null if there is no filter for them. @param {any} node */
function tracesOf(node) {
  if (node.kind === 'service') return address('/traces', { service: node.name });
  if (node.kind === 'database' && node.system)
    return address('/traces', { attribute: `db.system.name=${node.system}` });
  if (node.kind === 'queue') return address('/traces', { attribute: `messaging.destination.name=${node.name}` });
  if (node.kind === 'external') return address('/traces', { attribute: `server.address=${node.name}` });
  return null;
}

/** @param {string} query */
function useMedia(query) {
  const [is, setIs] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const look = () => setIs(media.matches);
    media.addEventListener('change', look);
    return () => media.removeEventListener('change', look);
  }, [query]);
  return is;
}

/** @param {{node: any, position: {x: number, y: number, width: number, height: number}}} props */
function Node({ node, position }) {
  const href = tracesOf(node);
  const name = plain(node.name);
  const left = position.x - position.width / 2;
  const top = position.y - position.height / 2;
  const inside = html`
    <title>${name}</title>
    <rect class="node-box" x=${left} y=${top} width=${position.width} height=${position.height} rx="8" />
    <path class="node-icon" d=${ICONS[node.kind] ?? ICONS.external} transform=${`translate(${left + 12} ${position.y - 8})`} />
    <text class="node-name" x=${left + 38} y=${position.y - 2}>${nodeName(name)}</text>
    <text class="node-kind" x=${left + 38} y=${position.y + 13}>${nodeName(plain(node.system ?? node.kind))}</text>
  `;
  const hue = node.kind === 'service' ? { '--hue': hueOf(node.name) } : undefined;
  const attributes = {
    class: `node node-${ICONS[node.kind] ? node.kind : 'external'}`,
    style: hue,
    'data-testid': 'node',
    'data-node': node.id,
  };
  return href ? html`<a ...${attributes} href=${href}>${inside}</a>` : html`<g ...${attributes}>${inside}</g>`;
}

/** @param {{edge: any, position: {x: number, y: number, points: {x: number, y: number}[]}}} props */
function Edge({ edge, position }) {
  return html`<g class="edge ${edge.errors > 0 ? 'is-error' : ''}" data-testid="edge">
    <path class="edge-line" d=${curve(position.points)} marker-end=${`url(#${edge.errors > 0 ? 'arrow-error' : 'arrow'})`} />
    <rect
      class="edge-ground"
      x=${position.x - LABEL.width / 2}
      y=${position.y - LABEL.height / 2}
      width=${LABEL.width}
      height=${LABEL.height}
      rx="4"
    />
    <text class="edge-label" x=${position.x} y=${position.y - 3}>
      ${rate(edge.rate)}${edge.errors > 0 && html`<tspan class="edge-errors"> ${percent(edge.errors, edge.calls)}</tspan>`}
    </text>
    <text class="edge-label edge-latency" x=${position.x} y=${position.y + 11}>p95 ${duration(edge.p95_ns)}</text>
  </g>`;
}

/** @param {{id: string, error?: boolean}} props */
function Arrow({ id, error = false }) {
  return html`<marker id=${id} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
    <path class=${error ? 'arrow arrow-error' : 'arrow'} d="M0 0.5L8 4L0 7.5z" />
  </marker>`;
}

/** Returns the most frequent edges and their nodes. @param {any[]} nodes @param {any[]} edges */
function busiest(nodes, edges) {
  if (edges.length <= MAX_EDGES) return { nodes, edges };
  const shown = byCalls(edges).slice(0, MAX_EDGES);
  const ids = new Set(shown.flatMap(({ from, to }) => [from, to]));
  return { nodes: nodes.filter(({ id }) => ids.has(id)), edges: shown };
}

/** @param {any[]} edges @returns {any[]} */
const byCalls = (edges) => [...edges].sort((one, other) => other.calls - one.calls);

/** @param {{nodes: any[], edges: any[]}} all */
function Drawing(all) {
  const { nodes, edges } = busiest(all.nodes, all.edges);
  const vertical = useMedia(NARROW);
  // The numbers change every second, but the layout depends only on the nodes and edges.
  const layoutKey = JSON.stringify([
    nodes.map(({ id, name }) => [id, name]),
    edges.map(({ from, to }) => [from, to]),
    vertical,
  ]);
  const graph = useMemo(() => layOutGraph(nodes, edges, vertical), [layoutKey]);
  return html`<div class="map-scroll">
    <svg
      class="map"
      role="group"
      aria-label="Services and their calls"
      width=${graph.width}
      height=${graph.height}
      viewBox=${`0 0 ${graph.width} ${graph.height}`}
      style=${{ minWidth: `${LEAST_SCALE * graph.width}px` }}
    >
      <defs><${Arrow} id="arrow" /><${Arrow} id="arrow-error" error /></defs>
      ${edges.map((edge) => {
        const position = graph.edges.get(edgeId(edge.from, edge.to));
        return position && html`<${Edge} key=${edgeId(edge.from, edge.to)} edge=${edge} position=${position} />`;
      })}
      ${nodes.map((node) => {
        const position = graph.nodes.get(node.id);
        return position && html`<${Node} key=${node.id} node=${node} position=${position} />`;
      })}
    </svg>
  </div>`;
}

/** @param {{nodes: any[], edges: any[]}} props */
function Calls({ nodes, edges }) {
  const names = new Map(nodes.map((node) => [node.id, node.name]));
  const name = (/** @type {string} */ id) => html`<${Text} value=${names.get(id) ?? id} limit=${80} />`;
  return html`<div class="scroll-x" tabindex="0"><table class="table" data-testid="calls">
    <thead>
      <tr>
        <th scope="col">From</th><th scope="col">To</th><th scope="col" class="num">Calls</th><th scope="col" class="num">Rate</th>
        <th scope="col" class="num">Errors</th><th scope="col" class="num">p50</th><th scope="col" class="num">p95</th><th scope="col" class="num">p99</th>
      </tr>
    </thead>
    <tbody>
      ${byCalls(edges).map(
        (edge) => html`<tr key=${edgeId(edge.from, edge.to)}>
            <td>${name(edge.from)}</td>
            <td>${name(edge.to)}</td>
            <td class="num">${count(edge.calls)}</td>
            <td class="num">${rate(edge.rate)}</td>
            <td class="num ${edge.errors > 0 ? 'bad' : 'muted'}">${count(edge.errors)}</td>
            <td class="num">${duration(edge.p50_ns)}</td>
            <td class="num">${duration(edge.p95_ns)}</td>
            <td class="num">${duration(edge.p99_ns)}</td>
          </tr>`,
      )}
    </tbody>
  </table></div>`;
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const window = String(readFilters(query).window ?? '5m');
  const { body, error } = useLive(address('/map', { window }));
  if (!body) return error ? html`<${ErrorMessage} error=${error} />` : html`<${Loading} />`;
  return html`
    <div class="title-row">
      <h1>Map</h1>
      <${Choice}
        label="Time"
        options=${WINDOWS}
        value=${window}
        onChange=${(/** @type {string} */ next) => navigate(address('/map', { window: next === '5m' ? '' : next }))}
      />
    </div>
    ${
      body.nodes.length === 0
        ? html`<${Empty} title="No calls in this period."><p><a href="/">How to send telemetry</a></p><//>`
        : html`<div class="panel"><${Drawing} nodes=${body.nodes} edges=${body.edges} /></div>
          <${Panel} title="Calls"><${Calls} nodes=${body.nodes} edges=${body.edges} /><//>`
    }
  `;
}
