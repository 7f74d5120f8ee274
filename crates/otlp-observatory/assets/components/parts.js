// Small components that several pages share.
import { html, useEffect, useState } from '../html.js';
import { bytes, dateTime } from '../format.js';

/**
 * Copies text. Browsers provide the clipboard API on localhost and https only; elsewhere, a selection is copied.
 *
 * @param {string} text
 */
async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement('textarea');
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  if (!copied) throw new Error('the browser did not allow copying');
}

/** A button that copies the result of `text()`. @param {{text: () => string, label: string, testid?: string}} props */
export function Copy({ text, label, testid }) {
  const [status, setStatus] = useState('');
  useEffect(() => {
    if (!status) return undefined;
    const timer = setTimeout(() => setStatus(''), 1500);
    return () => clearTimeout(timer);
  }, [status]);
  const onClick = () =>
    copy(text()).then(
      () => setStatus('Copied'),
      () => setStatus('Copy failed'),
    );
  return html`<button type="button" class="button" data-testid=${testid} onClick=${onClick}>
    <span aria-live="polite">${status || label}</span>
  </button>`;
}

/**
 * A message in place of an empty list or, with `page`, of a whole page.
 *
 * @param {{title: string, page?: boolean, children?: any}} props
 */
export function Empty({ title, page = false, children }) {
  return html`<div class="empty" data-testid="empty"><${page ? 'h1' : 'h2'} class="empty-title">${title}<//>
    ${children}</div>`;
}

/** The message of an error. @param {{error: {message: string} | null}} props */
export function ErrorMessage({ error }) {
  if (!error) return null;
  return html`<p class="error-message" role="alert" data-testid="error">${error.message}</p>`;
}

/**
 * Says that a page lacks telemetry that is kept on disk, unless it begins after that at `from`.
 *
 * @param {{since?: string, from?: string}} props nanoseconds since 1970
 */
export function MemoryNote({ since, from }) {
  if (!since || (from && BigInt(from) > BigInt(since))) return null;
  return html`<p class="muted" role="status" data-testid="memory-note">
    From memory, which has everything since ${dateTime(since)}. Older telemetry is in the kept file, which${' '}
    <a href="/traces">traces</a> in order of time and <a href="/logs">logs</a> include.
  </p>`;
}

/** A placeholder for loading content. */
export function Loading() {
  return html`<div class="loading" role="status" aria-label="loading"><i></i><i></i><i></i></div>`;
}

/** A meter that shows how much of a limit is used. @param {{used: number, limit: number, label: string}} props */
export function Meter({ used, limit, label }) {
  const fraction = limit > 0 ? Math.min(1, used / limit) : 0;
  return html`<span class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${limit} aria-valuenow=${used}>
    <span class="meter-bar"><span style=${{ width: `${100 * fraction}%` }}></span></span>
    <span class="num">${bytes(used)} of ${bytes(limit)}</span>
  </span>`;
}

/** @param {{title: string, children: any, actions?: any, testid?: string}} props */
export function Panel({ title, children, actions, testid }) {
  return html`<section class="panel" data-testid=${testid} aria-label=${title}>
    <header class="panel-head"><h2>${title}</h2>${actions}</header>
    ${children}
  </section>`;
}

/**
 * A choice between a few options, as toggle buttons.
 *
 * @param {{label: string, options: [string, string][], value: string, onChange: (value: string) => void}} props
 */
export function Choice({ label, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(
      ([option, text]) =>
        html`<button type="button" aria-pressed=${option === value} onClick=${() => onChange(option)}>${text}</button>`,
    )}
  </div>`;
}
