// The frame of every page: navigation, the pause button, the theme button, keyboard help, and the connection error.
import { html, useEffect, useRef, useState } from '../html.js';
import { useCell } from '../cell.js';
import { message } from '../import.js';
import { bindings, useKeys } from '../keys.js';
import { connection, paused } from '../live.js';
import { navigate } from '../router.js';
import { plain } from '../text.js';
import { choose, theme } from '../theme.js';

const PAGES = [
  ['/', 'Overview'],
  ['/traces', 'Traces'],
  ['/logs', 'Logs'],
  ['/metrics', 'Metrics'],
  ['/map', 'Map'],
  ['/problems', 'Problems'],
  ['/status', 'Status'],
];

const THEMES = /** @type {const} */ (['system', 'light', 'dark']);

/** @param {{path: string}} props */
function Navigation({ path }) {
  const isHere = (/** @type {string} */ page) =>
    page === '/' ? path === '/' : path === page || path.startsWith(`${page}/`);
  return html`<nav class="nav" aria-label="Pages">
    ${PAGES.map(
      ([page, title]) => html`<a href=${page} aria-current=${isHere(page) ? 'page' : undefined}>${title}</a>`,
    )}
  </nav>`;
}

function Clock() {
  const isPaused = useCell(paused);
  const lost = useCell(connection);
  const state = isPaused ? 'Paused' : lost === null ? 'Live' : 'Offline';
  return html`<button
    type="button"
    class="button clock clock-${state.toLowerCase()}"
    data-testid="live"
    aria-pressed=${isPaused}
    title=${isPaused ? 'Resume (p)' : 'Pause (p)'}
    onClick=${() => paused.set(!isPaused)}
  >
    <span class="clock-dot" aria-hidden="true"></span>${state}
  </button>`;
}

function ThemeButton() {
  const now = useCell(theme);
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  return html`<button
    type="button"
    class="button icon"
    data-testid="theme"
    aria-label=${`Theme: ${now}; change to ${next}`}
    title=${`Theme: ${now}`}
    onClick=${() => choose(next)}
  >
    ${{ system: '◐', light: '☀', dark: '☾' }[now]}
  </button>`;
}

const KEY_NAMES = /** @type {Record<string, string>} */ ({
  ArrowRight: '→',
  ArrowLeft: '←',
  Escape: 'Esc',
});

/** @param {{onClose: () => void}} props */
function Help({ onClose }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const { current } = dialog;
    current?.showModal();
    // The focus on the button has scrolled to the end of a long list.
    if (current) current.scrollTop = 0;
  }, []);
  return html`<dialog
    ref=${dialog}
    class="help"
    data-testid="keys"
    aria-label="Keyboard shortcuts"
    onClose=${onClose}
  >
    <h2>Keyboard shortcuts</h2>
    <dl>
      ${bindings().map(([key, description]) => html`<div><dt><kbd>${KEY_NAMES[key] ?? key}</kbd></dt><dd>${description}</dd></div>`)}
    </dl>
    <form method="dialog"><button class="button">Close</button></form>
  </dialog>`;
}

/** Moves the focus to the page without changing the fragment, which selects a span. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

/** Focuses the page's search field. */
function search() {
  const field = /** @type {HTMLElement | null} */ (document.querySelector('[data-search]'));
  field?.focus();
  return field ? undefined : /** @type {const} */ (false);
}

/** @param {{path: string, children: any}} props */
export function Shell({ path, children }) {
  const lost = useCell(connection);
  const imported = useCell(message);
  const [helping, setHelping] = useState(false);
  useKeys({
    '/': ['search', search],
    p: ['pause or resume', () => paused.set(!paused.get())],
    ...Object.fromEntries(PAGES.map(([page, title], index) => [String(index + 1), [title, () => navigate(page)]])),
    '?': ['keyboard help', () => setHelping(true)],
  });
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header class="top">
      <a class="brand" href="/" aria-label="Observatory: overview"
        ><img src="/assets/icon.svg" alt="" width="20" height="20" /><span>Observatory</span></a
      >
      <${Navigation} path=${path} />
      <div class="top-end">
        <${Clock} />
        <${ThemeButton} />
        <button type="button" class="button icon" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick=${() => setHelping(true)}>?</button>
      </div>
    </header>
    ${
      lost !== null &&
      html`<p class="lost" role="alert" data-testid="connection-lost" title=${plain(lost)}>
      Connection lost; the page shows old data. Reconnecting…
    </p>`
    }
    ${
      imported &&
      html`<p class="notice" role="status" data-testid="import-result">
        ${plain(imported)} <button type="button" class="button" onClick=${() => message.set('')}>Close</button>
      </p>`
    }
    <main id="main" tabindex="-1">${children}</main>
    ${helping && html`<${Help} onClose=${() => setHelping(false)} />`}
  `;
}
