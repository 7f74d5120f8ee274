// The filter form above a list. Fields update the address while the user types, and follow other changes to it.
import { html, useEffect, useRef } from '../html.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { useLive } from '../live.js';
import { navigate } from '../router.js';
import { plain } from '../text.js';
import { Text } from './text.js';

const TYPING_MS = 250;

/**
 * @typedef {object} Field
 * @property {string} name the parameter
 * @property {string} label
 * @property {[value: string, text: string][]} [options] values of a selection; without them, it is a text field
 * @property {string} [placeholder]
 * @property {string} [pattern] required format; other values are not applied
 * @property {boolean} [search] whether the key `/` focuses the field
 * @property {boolean} [narrow]
 */

/** @type {[string, string][]} */
export const AGES = [
  ['', 'any time'],
  ['1m', 'last minute'],
  ['5m', 'last 5 min'],
  ['15m', 'last 15 min'],
  ['1h', 'last hour'],
  ['24h', 'last day'],
];

/** Returns the known services as options. @returns {[string, string][]} */
export function useServices() {
  const { body } = useLive('/status', { every: 5000 });
  return [['', 'all services'], ...(body?.services ?? []).map((/** @type {string} */ name) => [name, plain(name)])];
}

/** @param {{field: Field, value: string, onChange: (value: string) => void}} props */
function Input({ field, value, onChange }) {
  const element = useRef(/** @type {HTMLInputElement | HTMLSelectElement | null} */ (null));
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  // A focused field is not updated: the user's text is newer than the address.
  useEffect(() => {
    if (element.current && element.current !== document.activeElement) element.current.value = value;
  }, [value]);
  const change = (/** @type {Event} */ event, wait = 0) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const next = input.value;
    clearTimeout(timer.current);
    if (!input.checkValidity()) return;
    timer.current = setTimeout(() => onChange(next.trim()), wait);
  };
  const id = `filter-${field.name}`;
  return html`<div class="field ${field.narrow ? 'field-narrow' : ''} ${field.search ? 'field-search' : ''}">
    <label for=${id}>${field.label}</label>
    ${
      field.options
        ? html`<select id=${id} name=${field.name} ref=${element} onChange=${change}>
          ${field.options.map(
            ([option, text]) =>
              html`<option key=${option} value=${option} selected=${option === value}>${text}</option>`,
          )}
          ${
            value &&
            !field.options.some(([option]) => option === value) &&
            html`<option key=${value} value=${value} selected>${plain(value)}</option>`
          }
        </select>`
        : html`<input
          id=${id}
          name=${field.name}
          ref=${element}
          defaultValue=${value}
          placeholder=${field.placeholder}
          pattern=${field.pattern}
          data-search=${field.search}
          spellcheck=${false}
          autocomplete="off"
          onInput=${(/** @type {Event} */ event) => change(event, TYPING_MS)}
        />`
    }
  </div>`;
}

/**
 * @param {{path: string, query: string, fields: Field[], attributes?: boolean}} props `attributes`: whether the list
 * has an attribute filter
 */
export function FilterForm({ path, query, fields, attributes: hasAttributes = true }) {
  const filters = readFilters(query);
  const set = (/** @type {string} */ name, /** @type {string | string[]} */ value) =>
    navigate(filterAddress(path, withFilter(readFilters(location.search), name, value)), { replace: true });
  const attributes = /** @type {string[]} */ (filters.attribute ?? []);
  const addAttribute = (/** @type {KeyboardEvent} */ event) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    if (event.key !== 'Enter') return;
    event.preventDefault();
    const value = input.value.trim();
    if (value && !attributes.includes(value)) set('attribute', [...attributes, value]);
    input.value = '';
  };
  // Filters without a field (such as a trace id) are shown as chips, because every filter must be visible.
  const others = Object.entries(filters).filter(
    ([name]) => name !== 'attribute' && !fields.some((field) => field.name === name),
  );
  const chips = [
    ...attributes.map((value) => ({
      text: value,
      drop: () =>
        set(
          'attribute',
          attributes.filter((other) => other !== value),
        ),
    })),
    ...others.map(([name, value]) => ({ text: `${name}=${value}`, drop: () => set(name, '') })),
  ];
  return html`<form class="filters" role="search" aria-label="Filters" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    ${fields.map(
      (field) =>
        html`<${Input}
          key=${field.name}
          field=${field}
          value=${String(filters[field.name] ?? '')}
          onChange=${(/** @type {string} */ value) => set(field.name, value)}
        />`,
    )}
    ${
      hasAttributes &&
      html`<div class="field">
      <label for="filter-attribute">Attribute</label>
      <input id="filter-attribute" placeholder="key=value, Enter" spellcheck=${false} autocomplete="off" onKeyDown=${addAttribute} />
    </div>`
    }
    ${
      chips.length > 0 &&
      html`<ul class="filter-chips" aria-label="More filters">
      ${chips.map(
        ({ text, drop }) =>
          html`<li key=${text}>
            <${Text} value=${text} limit=${80} /><button type="button" aria-label=${`Remove ${plain(text)}`} onClick=${drop}>×</button>
          </li>`,
      )}
    </ul>`
    }
    ${
      Object.keys(filters).length > 0 &&
      html`<a class="button filters-clear" href=${path} data-testid="clear-filters">Clear</a>`
    }
  </form>`;
}
