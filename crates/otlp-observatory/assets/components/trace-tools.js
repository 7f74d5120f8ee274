// The tools above the waterfall: find, errors, folding, groups, critical path, zoom.
import { html } from '../html.js';
import { count, plural } from '../format.js';
import { Choice } from './parts.js';

/** @param {{label: string, keys: string, pressed: boolean, onClick: () => void}} props */
export function Toggle({ label, keys, pressed, onClick }) {
  const title = `${label} (${keys})`;
  return html`<button type="button" class="button" aria-pressed=${pressed} title=${title} onClick=${onClick}>
    ${label}
  </button>`;
}

/** @param {{label: string, keys: string, sign: string, onClick: () => void, disabled?: boolean}} props */
function Step({ label, keys, sign, onClick, disabled }) {
  return html`<button
    type="button"
    class="button icon"
    aria-label=${label}
    title=${`${label} (${keys})`}
    disabled=${disabled}
    onClick=${onClick}
  >
    ${sign}
  </button>`;
}

/**
 * @param {object} props
 * @param {string} props.query
 * @param {(query: string) => void} props.onQuery
 * @param {number} props.matches
 * @param {number} props.position of the selected span among the matches, from 1; 0 if it is none
 * @param {(step: 1 | -1) => void} props.onStep
 * @param {boolean} props.only whether only matches are shown
 * @param {() => void} props.onOnly
 */
export function FindBar({ query, onQuery, matches, position, onStep, only, onOnly }) {
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Enter') onStep(event.shiftKey ? -1 : 1);
    else if (event.key === 'Escape' && query) onQuery('');
    else return;
    event.preventDefault();
  };
  const all = matches === 0 ? 'no match' : plural(matches, 'match', 'matches');
  const found = position > 0 ? `${count(position)} of ${count(matches)}` : query.trim() === '' ? '' : all;
  return html`<div class="tool-group find-bar" role="search" aria-label="Find in the trace">
    <input
      type="search"
      aria-label="Find spans"
      placeholder="Find: text, name~part, dur>5ms"
      data-search
      data-testid="find"
      spellcheck=${false}
      autocomplete="off"
      value=${query}
      onInput=${(/** @type {Event} */ event) => onQuery(/** @type {HTMLInputElement} */ (event.target).value)}
      onKeyDown=${onKeyDown}
    />
    <output class="num" data-testid="found">${found}</output>
    <${Step} label="Previous match" keys="N" sign="↑" disabled=${matches === 0} onClick=${() => onStep(-1)} />
    <${Step} label="Next match" keys="n" sign="↓" disabled=${matches === 0} onClick=${() => onStep(1)} />
    <${Toggle} label="Only matches" keys="f" pressed=${only} onClick=${onOnly} />
  </div>`;
}

/**
 * @param {object} props
 * @param {{errors: number, levels: number, level: number, skewed: number, aligned: boolean, groups: boolean}} props.trace
 * @param {{grouping: boolean, critical: boolean, mode: string, zoomed: boolean}} props.view
 * @param {Record<string, (...values: any[]) => void>} props.actions
 */
export function ViewTools({ trace, view, actions }) {
  return html`<div class="tool-group">
    ${
      trace.errors > 0 &&
      html`<button
        type="button"
        class="button tool-error"
        data-testid="next-error"
        title="Next error (e)"
        onClick=${() => actions.error(1)}
      >
        ${plural(trace.errors, 'error')} <span aria-hidden="true">↓</span>
      </button>`
    }
    <${Choice}
      label="View"
      options=${[
        ['timeline', 'Timeline'],
        ['statistics', 'Statistics'],
      ]}
      value=${view.mode}
      onChange=${actions.mode}
    />
    ${
      view.mode === 'timeline' &&
      html`${trace.groups && html`<${Toggle} label="Groups" keys="g" pressed=${view.grouping} onClick=${actions.group} />`}
      <${Toggle} label="Critical path" keys="c" pressed=${view.critical} onClick=${actions.critical} />
      ${
        (trace.skewed > 0 || trace.aligned) &&
        html`<${Toggle} label="Align clocks" keys="a" pressed=${trace.aligned} onClick=${actions.align} />`
      }
      ${
        trace.levels > 1 &&
        html`<span class="tool-steps" role="group" aria-label="Levels">
          <${Step}
            label="Fewer levels"
            keys="["
            sign="−"
            disabled=${trace.level <= 1}
            onClick=${() => actions.level(trace.level - 1)}
          />
          <span class="num" data-testid="levels">${trace.level} of ${plural(trace.levels, 'level')}</span>
          <${Step}
            label="More levels"
            keys="]"
            sign="+"
            disabled=${trace.level >= trace.levels}
            onClick=${() => actions.level(trace.level + 1)}
          />
        </span>`
      }
      <span class="tool-steps" role="group" aria-label="Zoom">
        <${Step} label="Zoom out" keys="-" sign="−" disabled=${!view.zoomed} onClick=${() => actions.zoom(0.5)} />
        <button type="button" class="button" disabled=${!view.zoomed} title="Whole trace (0)" onClick=${actions.whole}>
          Whole trace
        </button>
        <${Step} label="Zoom in" keys="+" sign="+" onClick=${() => actions.zoom(2)} />
      </span>`
    }
  </div>`;
}
