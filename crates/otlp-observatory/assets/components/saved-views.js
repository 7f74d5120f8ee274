// The menu of saved views: opens, saves and removes them.
import { html, useRef, useState } from '../html.js';
import { useCell } from '../cell.js';
import { plain } from '../text.js';
import { saveViews, views, withView } from '../views.js';
import { Text } from './text.js';

export function SavedViews() {
  const menu = useRef(/** @type {HTMLDetailsElement | null} */ (null));
  const saved = useCell(views);
  const [name, setName] = useState('');
  const close = () => menu.current?.removeAttribute('open');
  const save = () => {
    if (!name.trim()) return;
    saveViews(withView(saved, { name: name.trim(), address: location.pathname + location.search }));
    setName('');
  };
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Enter' && event.target instanceof HTMLInputElement) {
      event.preventDefault();
      save();
    } else if (event.key === 'Escape') {
      event.preventDefault();
      close();
      menu.current?.querySelector('summary')?.focus();
    }
  };
  return html`<details class="views" ref=${menu} data-testid="views" onKeyDown=${onKeyDown}>
    <summary class="button">Views</summary>
    <div class="views-menu">
      ${
        saved.length > 0 &&
        html`<ul aria-label="Saved views">
          ${saved.map(
            (view) => html`<li key=${view.name}>
              <a href=${view.address} onClick=${close}><${Text} value=${view.name} limit=${60} /></a>
              <button
                type="button"
                class="link"
                aria-label=${`Remove the view ${plain(view.name)}`}
                onClick=${() => saveViews(saved.filter((other) => other !== view))}
              >×</button>
            </li>`,
          )}
        </ul>`
      }
      <label for="view-name">Save this view as</label>
      <div class="views-save">
        <input
          id="view-name"
          value=${name}
          maxlength="60"
          autocomplete="off"
          onInput=${(/** @type {Event} */ event) => setName(/** @type {HTMLInputElement} */ (event.target).value)}
        />
        <button type="button" class="button" disabled=${!name.trim()} onClick=${save}>Save</button>
      </div>
    </div>
  </details>`;
}
