// The query line: a combobox that completes keys and values seen in telemetry. Enter applies the query.
import { html, useEffect, useLayoutEffect, useRef, useState } from '../html.js';
import { get } from '../api.js';
import { contextAt, optionsFor, traceOf } from '../query.js';
import { address, navigate } from '../router.js';
import { plain } from '../text.js';

/** @typedef {{text: string, count: number}} Counted */

const EXAMPLES = /** @type {Record<string, string>} */ ({
  traces: 'service=a !name~health status>=500 dur>100ms',
  logs: 'service=a level>=warn !body~health',
});

const texts = (/** @type {Counted[] | undefined} */ list) => (list ?? []).map((one) => one.text);

/** Requests completions; there are none while the server is unreachable. @param {string} page @param {string} [key] */
async function request(page, key) {
  try {
    return (await get(address('/completions', { page, key })))?.body ?? {};
  } catch {
    return {};
  }
}

/** Explains the language. */
function Syntax() {
  return html`<details class="query-help">
    <summary>Syntax</summary>
    <dl>
      <dt><code>=</code> <code>!=</code> <code>~</code> <code>!~</code></dt><dd>equal, contains, and their opposites</dd>
      <dt><code>${'<'}</code> <code>${'<='}</code> <code>${'>'}</code> <code>${'>='}</code></dt>
      <dd>numbers, durations (<code>10ms</code>, <code>1.5s</code>) and levels</dd>
      <dt><code>a b</code>, <code>a or b</code>, <code>(…)</code></dt><dd>both, one of them, groups</dd>
      <dt><code>!a</code></dt><dd>not; in a trace, no span matches</dd>
      <dt><code>key=*</code></dt><dd>has the attribute</dd>
      <dt><code>word</code></dt><dd>text anywhere, or a trace id</dd>
      <dt><code>"a b"</code></dt><dd>quotes a text; a quoted key is an attribute</dd>
    </dl>
  </details>`;
}

/** @param {{page: 'traces' | 'logs', value: string, onApply: (query: string) => void}} props */
export function QueryLine({ page, value, onApply }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [known, setKnown] = useState(/** @type {{fields: string[], keys: string[]}} */ ({ fields: [], keys: [] }));
  const [values, setValues] = useState(/** @type {{key: string, values: string[]} | null} */ (null));
  const [caret, setCaret] = useState(/** @type {{text: string, at: number} | null} */ (null));
  const [active, setActive] = useState(-1);
  // Not `useEffect`, which runs later and would overwrite what has been typed since the line appeared.
  useLayoutEffect(() => {
    if (input.current) input.current.value = value;
  }, [value]);

  const context = caret && contextAt(caret.text, caret.at);
  const key = context?.key ?? null;
  useEffect(() => {
    if (key === null) return undefined;
    let isCurrent = true;
    request(page, key).then(({ fields = [], values: seen }) => {
      if (isCurrent) setValues({ key, values: [...new Set([...fields, ...texts(seen)])] });
    });
    return () => {
      isCurrent = false;
    };
  }, [page, key]);

  const options = context ? optionsFor(context, { ...known, values: values?.key === key ? values.values : [] }) : [];
  const chosen = options[active];
  const isOpen = options.length > 0;

  const show = () => {
    const element = input.current;
    if (!element) return;
    setCaret({ text: element.value, at: element.selectionStart ?? element.value.length });
    setActive(-1);
  };
  const close = () => setCaret(null);
  const accept = (/** @type {{text: string}} */ option) => {
    const element = input.current;
    if (!element || !context) return;
    element.focus();
    element.setRangeText(option.text, context.from, context.to, 'end');
    show();
  };
  const apply = () => {
    const text = (input.current?.value ?? '').trim();
    const trace = traceOf(text);
    close();
    if (trace) navigate(trace);
    else if (text !== value) onApply(text);
  };
  const onFocus = () => {
    request(page).then(({ fields = [], keys }) => setKnown({ fields, keys: texts(keys) }));
  };
  const move = (/** @type {number} */ step) => setActive((active + step + options.length) % options.length);
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === 'Enter') {
      if (isOpen && chosen) accept(chosen);
      else apply();
    } else if (event.key === 'ArrowDown') {
      if (isOpen) move(1);
      else show();
    } else if (event.key === 'ArrowUp' && isOpen) {
      move(active < 0 ? 0 : -1);
    } else if (event.key === 'Tab' && isOpen && chosen) {
      accept(chosen);
    } else if (event.key === 'Escape' && isOpen) {
      close();
    } else {
      return;
    }
    event.preventDefault();
  };

  return html`<div class="query-line">
    <label for="query">Query</label>
    <div class="query-box">
      <input
        id="query"
        name="query"
        ref=${input}
        role="combobox"
        aria-autocomplete="list"
        aria-expanded=${isOpen}
        aria-controls="query-options"
        aria-activedescendant=${isOpen && chosen ? `query-option-${active}` : undefined}
        defaultValue=${value}
        placeholder=${EXAMPLES[page]}
        data-search
        data-testid="query"
        spellcheck=${false}
        autocomplete="off"
        autocapitalize="off"
        onFocus=${onFocus}
        onBlur=${close}
        onInput=${show}
        onClick=${show}
        onKeyDown=${onKeyDown}
      />
      <ul id="query-options" role="listbox" aria-label="Completions" hidden=${!isOpen}>
        ${options.map(
          (option, index) =>
            html`<li
              key=${option.label}
              id=${`query-option-${index}`}
              role="option"
              aria-selected=${index === active}
              onMouseDown=${(/** @type {Event} */ event) => event.preventDefault()}
              onClick=${() => accept(option)}
              >${plain(option.label)}</li
            >`,
        )}
      </ul>
    </div>
    <button type="button" class="button" onClick=${apply}>Search</button>
    <${Syntax} />
  </div>`;
}
