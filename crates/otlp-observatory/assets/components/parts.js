// Small parts that several pages are made of.
import { html, useEffect, useState } from '../html.js';
import { bytes } from '../format.js';

/** Puts text on the clipboard; where browsers have none (pages that are not on localhost or https) by selection. @param {string} text */
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
  if (!copied) throw new Error('the browser does not let pages copy');
}

/** A button that copies what `text()` says. @param {{text: () => string, label: string, testid?: string}} props */
export function Copy({ text, label, testid }) {
  const [said, setSaid] = useState('');
  useEffect(() => {
    if (!said) return undefined;
    const timer = setTimeout(() => setSaid(''), 1500);
    return () => clearTimeout(timer);
  }, [said]);
  const onClick = () =>
    copy(text()).then(
      () => setSaid('Copied'),
      () => setSaid('Not copied'),
    );
  return html`<button type="button" class="button" data-testid=${testid} onClick=${onClick}>
    <span aria-live="polite">${said || label}</span>
  </button>`;
}

/** What is said where nothing is to be shown. @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty" data-testid="empty"><p class="empty-title">${title}</p>
    ${children}</div>`;
}

/** What the observatory refused to answer, and why. @param {{refusal: {message: string} | null}} props */
export function Refusal({ refusal }) {
  if (!refusal) return null;
  return html`<p class="refusal" role="alert" data-testid="refusal">${refusal.message}</p>`;
}

/** Grey bars in the place of what is on its way. */
export function Loading() {
  return html`<div class="loading" role="status" aria-label="loading"><i></i><i></i><i></i></div>`;
}

/** How much of a limit is used. @param {{used: number, limit: number, label: string}} props */
export function Meter({ used, limit, label }) {
  const part = limit > 0 ? Math.min(1, used / limit) : 0;
  return html`<span class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${limit} aria-valuenow=${used}>
    <span class="meter-bar"><span style=${{ width: `${100 * part}%` }}></span></span>
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

/** A choice of few, as buttons of which one is pressed. @param {{label: string, options: [string, string][], value: string, onChange: (value: string) => void}} props */
export function Choice({ label, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(
      ([option, text]) =>
        html`<button type="button" aria-pressed=${option === value} onClick=${() => onChange(option)}>${text}</button>`,
    )}
  </div>`;
}
