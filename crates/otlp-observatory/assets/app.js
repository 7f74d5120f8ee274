// Starts the pages: finds the page of an address and draws it. One module per page is loaded, when it is first seen.
import { Component, html, render, useEffect, useState } from './html.js';
import { Loading, Empty } from './components/parts.js';
import { Shell } from './components/shell.js';
import * as keys from './keys.js';
import * as router from './router.js';

/** @type {[pattern: RegExp, title: string, load: () => Promise<{Page: any}>][]} */
const PAGES = [
  [/^\/$/, 'Overview', () => import('./pages/overview.js')],
  [/^\/traces\/?$/, 'Traces', () => import('./pages/traces.js')],
  [/^\/traces\/([^/]+)$/, 'Trace', () => import('./pages/trace.js')],
  [/^\/logs\/?$/, 'Logs', () => import('./pages/logs.js')],
  [/^\/metrics\/?$/, 'Metrics', () => import('./pages/metrics.js')],
  [/^\/metrics\/([^/]+)$/, 'Metric', () => import('./pages/metric.js')],
  [/^\/map\/?$/, 'Map', () => import('./pages/map.js')],
  [/^\/status\/?$/, 'Status', () => import('./pages/status.js')],
];

/** Keeps the way to the other pages when one cannot be drawn. */
class Boundary extends Component {
  state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  /** @param {unknown} error */
  componentDidCatch(error) {
    console.error(error);
  }

  /** @param {{children?: any}} props @param {{failed: boolean}} state */
  render({ children }, { failed }) {
    if (!failed) return children;
    return html`<${Empty} title="This page could not be drawn."><p>The browser's console says why.</p><//>`;
  }
}

function App() {
  const here = router.useLocation();
  const found = PAGES.find(([pattern]) => pattern.test(here.path));
  const [loaded, setLoaded] = useState(/** @type {{of: any, Page: any} | null} */ (null));
  useEffect(() => {
    document.title = `${found ? found[1] : 'Not found'} · Observatory`;
    let current = true;
    found?.[2]().then(({ Page }) => current && setLoaded({ of: found, Page }));
    return () => {
      current = false;
    };
  }, [found]);

  const argument = found ? router.decode(found[0].exec(here.path)?.[1] ?? '') : null;
  let page = html`<${Loading} />`;
  if (argument === null) page = html`<${Empty} title="There is no such page."><a href="/">Overview</a><//>`;
  else if (loaded?.of === found) page = html`<${loaded.Page} key=${here.path} argument=${argument} ...${here} />`;
  return html`<${Shell} path=${here.path}><${Boundary} key=${here.path}>${page}<//><//>`;
}

router.start();
keys.start();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
