// The filter form above a list. Fields update the address while the user types, and follow other changes to it.
import { html, useEffect, useRef } from '../html.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { useLive } from '../live.js';
import { traceOf } from '../query.js';
import { navigate } from '../router.js';
import { plain } from '../text.js';
import { QueryLine } from './query-line.js';
import { SavedViews } from './saved-views.js';
import { Text } from './text.js';

const TYPING_MS = 250;

/**
 * @typedef {object} Field
 * @property {string} name the parameter
 * @property {string} label
 * @property {[value: string, text: string][]} [options] values of a selection; without them, it is a text field
 * @property {string} [placeholder]
 * @property {string} [pattern] required format; other values are not applied
 * @property {boolean} [search] whether the key `/` focuses the field, unless there is a query line
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

/**
 * `onChange` gets whether the change continues an earlier one: what a user types into a field is one change.
 *
 * @param {{field: Field, value: string, onChange: (value: string, continues: boolean) => void}} props
 */
function Input({ field, value, onChange }) {
  const hasChanged = useRef(false);
  const sent = useRef(value);
  const element = useRef(/** @type {HTMLInputElement | HTMLSelectElement | null} */ (null));
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  // The field's own changes are not written back, because the user may have typed more since.
  useEffect(() => {
    if (!element.current || value === sent.current) return;
    element.current.value = value;
    sent.current = value;
    hasChanged.current = false;
  }, [value]);
  const change = (/** @type {Event} */ event, wait = 0) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    const next = input.value;
    clearTimeout(timer.current);
    if (!input.checkValidity()) return;
    const trace = field.options ? null : traceOf(next);
    timer.current = setTimeout(() => {
      if (trace) {
        navigate(trace);
        return;
      }
      sent.current = next.trim();
      onChange(sent.current, hasChanged.current);
      hasChanged.current = !field.options;
    }, wait);
  };
  const onFocus = () => {
    hasChanged.current = false;
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
          spellcheck=${false}
          data-search=${field.search}
          autocomplete="off"
          onFocus=${onFocus}
          onInput=${(/** @type {Event} */ event) => change(event, TYPING_MS)}
        />`
    }
  </div>`;
}

/**
 * @param {object} props
 * @param {string} props.path
 * @param {string} props.query
 * @param {Field[]} props.fields
 * @param {boolean} [props.attributes] whether the list has an attribute filter
 * @param {'traces' | 'logs'} [props.language] entries of the query line; without it, the list has none
 */
export function FilterForm({ path, query, fields, attributes: hasAttributes = true, language }) {
  const filters = readFilters(query);
  // Each change is an entry of the history.
  const set = (/** @type {string} */ name, /** @type {string | string[]} */ value, continues = false) =>
    navigate(filterAddress(path, withFilter(readFilters(location.search), name, value)), { replace: continues });
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
    ([name]) => name !== 'attribute' && !(language && name === 'query') && !fields.some((field) => field.name === name),
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
    ${
      language &&
      html`<${QueryLine} page=${language} value=${String(filters.query ?? '')} onApply=${(/** @type {string} */ text) => set('query', text)} />`
    }
    ${fields.map(
      (field) =>
        html`<${Input}
          key=${field.name}
          field=${field}
          value=${String(filters[field.name] ?? '')}
          onChange=${(/** @type {string} */ value, /** @type {boolean} */ continues) => set(field.name, value, continues)}
        />`,
    )}
    ${
      hasAttributes &&
      html`<div class="field">
      <label for="filter-attribute">Attribute</label>
      <input id="filter-attribute" placeholder="key=value, key>5" spellcheck=${false} autocomplete="off" onKeyDown=${addAttribute} />
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
    <${SavedViews} />
    ${
      Object.keys(filters).length > 0 &&
      html`<a class="button filters-clear" href=${path} data-testid="clear-filters">Clear</a>`
    }
  </form>`;
}
