// The service map: calls between services, databases, queues and external hosts, with rate, errors and latency, as a
// drawing and as a table.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../html.js';
import { useServices } from '../components/filters.js';
import { Choice, Empty, Loading, Panel, ErrorMessage, MemoryNote } from '../components/parts.js';
import { Text } from '../components/text.js';
import { readFilters } from '../filters.js';
import { count, duration, percent, rate } from '../format.js';
import { LABEL, curve, edgeId, layOutGraph, nodeDetail, nodeName } from '../graph.js';
import { hueOf } from '../hue.js';
import { useLive } from '../live.js';
import { byCalls, drawn, filtersOf } from '../map.js';
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

/** @param {{node: any, position: {x: number, y: number, width: number, height: number}, focus: boolean}} props */
function Node({ node, position, focus }) {
  const filters = filtersOf(node);
  const href = filters && address('/traces', filters);
  const name = plain(node.name);
  const left = position.x - position.width / 2;
  const top = position.y - position.height / 2;
  const inside = html`
    <title>${name}</title>
    <rect class="node-box" x=${left} y=${top} width=${position.width} height=${position.height} rx="8" />
    <path class="node-icon" d=${ICONS[node.kind] ?? ICONS.external} transform=${`translate(${left + 12} ${position.y - 8})`} />
    <text class="node-name" x=${left + 38} y=${position.y - 2}>${nodeName(name)}</text>
    <text class="node-kind" x=${left + 38} y=${position.y + 13}>${plain(nodeDetail(node))}</text>
  `;
  const hue = node.kind === 'service' ? { '--hue': hueOf(node.name) } : undefined;
  const attributes = {
    class: `node node-${ICONS[node.kind] ? node.kind : 'external'} ${focus ? 'is-focus' : ''}`,
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

/** Factor of one zoom step. */
const ZOOM = 1.25;

/**
 * Lets the user zoom a drawing with buttons and with Ctrl and the wheel, and pan it by dragging. The scale is null until
 * the user zooms. A new drawing is shown with the node `main` in the middle.
 *
 * @param {any} graph
 * @param {string | undefined} main
 */
function useZoom(graph, main) {
  const view = useRef(/** @type {HTMLElement | null} */ (null));
  const [scale, setScale] = useState(/** @type {number | null} */ (null));
  /** Centre of the view, as fractions of the drawing, which zooming keeps. */
  const centre = useRef(/** @type {[number, number] | null} */ (null));
  const zoom = (/** @type {number} */ factor) => {
    const { current } = view;
    const before = (current?.querySelector('svg')?.clientWidth ?? graph.width) / graph.width;
    if (current) {
      centre.current = [
        (current.scrollLeft + current.clientWidth / 2) / current.scrollWidth,
        (current.scrollTop + current.clientHeight / 2) / current.scrollHeight,
      ];
    }
    setScale(Math.min(2, Math.max(0.05, before * factor)));
  };
  const showAll = () => {
    const { current } = view;
    if (current) setScale(Math.min(1, (current.clientWidth - 16) / graph.width, (innerHeight * 0.7) / graph.height));
  };
  useLayoutEffect(() => {
    const { current } = view;
    if (!current || !centre.current) return;
    current.scrollLeft = centre.current[0] * current.scrollWidth - current.clientWidth / 2;
    current.scrollTop = centre.current[1] * current.scrollHeight - current.clientHeight / 2;
    centre.current = null;
  }, [scale]);
  useLayoutEffect(() => {
    const { current } = view;
    const node = graph.nodes.get(main);
    if (!current || !node) return;
    current.scrollLeft = (node.x / graph.width) * current.scrollWidth - current.clientWidth / 2;
    current.scrollTop = (node.y / graph.height) * current.scrollHeight - current.clientHeight / 2;
  }, [graph]);
  useEffect(() => {
    const { current } = view;
    if (!current) return undefined;
    const wheel = (/** @type {WheelEvent} */ event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? ZOOM : 1 / ZOOM);
    };
    const drag = (/** @type {PointerEvent} */ event) => {
      if (event.pointerType !== 'mouse' || event.buttons !== 1) return;
      current.scrollBy(-event.movementX, -event.movementY);
    };
    current.addEventListener('wheel', wheel, { passive: false });
    current.addEventListener('pointermove', drag);
    return () => {
      current.removeEventListener('wheel', wheel);
      current.removeEventListener('pointermove', drag);
    };
  }, [graph]);
  return { view, scale, zoom, showAll };
}

/** @param {{map: any, service: string}} props */
function Drawing({ map, service }) {
  const { nodes, edges, total } = drawn(map, MAX_EDGES);
  const vertical = useMedia(NARROW);
  // The numbers change every second, but the layout depends only on the nodes and edges.
  const layoutKey = JSON.stringify([
    nodes.map(({ id, name, detail }) => [id, name, Boolean(detail)]),
    edges.map(({ from, to }) => [from, to]),
    vertical,
  ]);
  const graph = useMemo(() => layOutGraph(nodes, edges, vertical), [layoutKey]);
  const { view, scale, zoom, showAll } = useZoom(graph, service ? `service:${service}` : edges[0]?.from);
  const size = scale === null ? { minWidth: `${LEAST_SCALE * graph.width}px` } : { width: `${scale * graph.width}px`, maxWidth: 'none' };
  return html`<div class="map-tools">
    <div class="choice" role="group" aria-label="Zoom">
      <button type="button" aria-label="Zoom out" onClick=${() => zoom(1 / ZOOM)}>−</button>
      <button type="button" aria-label="Zoom in" onClick=${() => zoom(ZOOM)}>+</button>
      <button type="button" onClick=${showAll}>Show all</button>
    </div>
    ${
      edges.length < total &&
      html`<p class="muted" data-testid="map-note">
        ${count(edges.length)} of ${count(total)} connections are drawn: first those between services, then those with most calls.
        ${service ? '' : ' Focus on a service to see all of its connections.'}
      </p>`
    }
  </div>
  <div class="map-scroll" ref=${view} tabindex="0" role="region" aria-label="Drawing of the map">
    <svg
      class="map"
      role="group"
      aria-label="Services and their calls"
      width=${graph.width}
      height=${graph.height}
      viewBox=${`0 0 ${graph.width} ${graph.height}`}
      style=${size}
    >
      <defs><${Arrow} id="arrow" /><${Arrow} id="arrow-error" error /></defs>
      ${edges.map((edge) => {
        const position = graph.edges.get(edgeId(edge.from, edge.to));
        return position && html`<${Edge} key=${edgeId(edge.from, edge.to)} edge=${edge} position=${position} />`;
      })}
      ${nodes.map((node) => {
        const position = graph.nodes.get(node.id);
        return position && html`<${Node} key=${node.id} node=${node} position=${position} focus=${node.id === `service:${service}`} />`;
      })}
    </svg>
  </div>`;
}

/** @param {{map: any, window: string}} props */
function Calls({ map: { nodes, edges, left_out: leftOut }, window }) {
  const known = new Map(nodes.map((/** @type {any} */ node) => [node.id, node]));
  const name = (/** @type {string} */ id) => {
    const node = known.get(id);
    const text = html`<${Text} value=${node?.name ?? id} limit=${80} />`;
    return node?.kind === 'service' ? html`<a href=${mapAddress(window, node.name)}>${text}</a>` : text;
  };
  return html`${leftOut.edges > 0 && html`<p class="muted pad">The ${count(edges.length)} most important of ${count(edges.length + leftOut.edges)}.</p>`}
  <div class="scroll-x" tabindex="0" role="region" aria-label="Table of calls"><table class="table" data-testid="calls">
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

/** @param {string} window @param {string} service */
const mapAddress = (window, service) => address('/map', { window: window === '5m' ? '' : window, service });

/** A field that focuses the map on one service. @param {{service: string, window: string}} props */
function Focus({ service, window }) {
  const services = useServices().filter(([name]) => name !== '');
  const change = (/** @type {Event} */ event) => {
    const { value } = /** @type {HTMLInputElement} */ (event.target);
    if (value === '' || services.some(([name]) => name === value)) navigate(mapAddress(window, value));
  };
  return html`<div class="map-focus">
    <label for="map-focus">Focus on</label>
    <div class="field">
      <input
        id="map-focus"
        key=${service}
        list="map-services"
        placeholder="any service"
        defaultValue=${service}
        data-search
        spellcheck=${false}
        autocomplete="off"
        onInput=${change}
      />
    </div>
    <datalist id="map-services">${services.map(([name]) => html`<option value=${name}></option>`)}</datalist>
    ${service && html`<a class="button" href=${mapAddress(window, '')}>All services</a>`}
  </div>`;
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const filters = readFilters(query);
  const window = String(filters.window ?? '5m');
  const service = String(filters.service ?? '');
  const { body, error } = useLive(address('/map', { window, service }));
  if (!body) return error ? html`<${ErrorMessage} error=${error} />` : html`<${Loading} />`;
  return html`
    <div class="title-row">
      <h1>Map</h1>
      <${Focus} service=${service} window=${window} />
      <${Choice}
        label="Time"
        options=${WINDOWS}
        value=${window}
        onChange=${(/** @type {string} */ next) => navigate(mapAddress(next, service))}
      />
    </div>
    <${MemoryNote} since=${body.memory_since_unix_nano} />
    ${
      body.nodes.length === 0
        ? html`<${Empty} title=${service ? `No calls from or to ${plain(service)} in this period.` : 'No calls in this period.'}>
            <p>${service ? html`<a href=${mapAddress(window, '')}>All services</a>` : html`<a href="/">How to send telemetry</a>`}</p>
          <//>`
        : html`<div class="panel"><${Drawing} map=${body} service=${service} /></div>
          <${Panel} title="Calls"><${Calls} map=${body} window=${window} /><//>`
    }
  `;
}
