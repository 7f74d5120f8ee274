// Entry point: selects the page of an address and renders it. A page's module is loaded when the page is first opened.
import { Component, html, render, useEffect, useState } from './html.js';
import { Loading, Empty } from './components/parts.js';
import { Shell } from './components/shell.js';
import * as imports from './import.js';
import * as keys from './keys.js';
import * as paste from './paste.js';
import * as router from './router.js';

/** @type {[pattern: RegExp, title: string, load: () => Promise<{Page: any}>][]} */
const PAGES = [
  [/^\/$/, 'Overview', () => import('./pages/overview.js')],
  [/^\/traces$/, 'Traces', () => import('./pages/traces.js')],
  [/^\/traces\/([^/]+)$/, 'Trace', () => import('./pages/trace.js')],
  [/^\/logs$/, 'Logs', () => import('./pages/logs.js')],
  [/^\/metrics$/, 'Metrics', () => import('./pages/metrics.js')],
  [/^\/metrics\/([^/]+)$/, 'Metric', () => import('./pages/metric.js')],
  [/^\/map$/, 'Map', () => import('./pages/map.js')],
  [/^\/problems$/, 'Problems', () => import('./pages/problems.js')],
  [/^\/compare$/, 'Compare', () => import('./pages/compare.js')],
  [/^\/status$/, 'Status', () => import('./pages/status.js')],
];

/** Catches errors of a page, so navigation keeps working. */
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
    return html`<${Empty} title="This page could not be displayed." page><p>See the browser console for the error.</p><//>`;
  }
}

function App() {
  const current = router.useLocation();
  const found = PAGES.find(([pattern]) => pattern.test(current.path));
  const [loaded, setLoaded] = useState(/** @type {{route: any, Page: any} | null} */ (null));
  useEffect(() => {
    document.title = `${found ? found[1] : 'Not found'} · Observatory`;
    let active = true;
    found?.[2]().then(({ Page }) => active && setLoaded({ route: found, Page }));
    return () => {
      active = false;
    };
  }, [found]);

  const argument = found ? router.decode(found[0].exec(current.path)?.[1] ?? '') : null;
  let page = html`<${Loading} />`;
  if (argument === null) page = html`<${Empty} title="Page not found." page><p><a href="/">Overview</a></p><//>`;
  else if (loaded?.route === found) page = html`<${loaded.Page} key=${current.path} argument=${argument} ...${current} />`;
  return html`<${Shell} path=${current.path}><${Boundary} key=${current.path}>${page}<//><//>`;
}

router.start();
keys.start();
paste.start();
imports.start();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
