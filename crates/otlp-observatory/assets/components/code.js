// Source code: links to the editor, their settings, and stack traces.
import { cell, useCell } from '../cell.js';
import { EDITORS, editorAddress, isEditor, sourceOf } from '../editor.js';
import { html, useLayoutEffect, useRef } from '../html.js';
import { count } from '../format.js';
import { raisedAt, sourceIn } from '../stack.js';
import { Text } from './text.js';

/** Maximum number of lines of a stack trace; the middle of a longer one is left out. */
const MAX_LINES = 1000;

function stored() {
  try {
    return { editor: EDITORS[0], folder: '', ...JSON.parse(localStorage.getItem('editor') ?? '{}') };
  } catch {
    return { editor: EDITORS[0], folder: '' };
  }
}

const settings = cell(/** @type {{editor: string, folder: string}} */ (stored()));

/** @param {{editor?: string, folder?: string}} change */
function choose(change) {
  settings.set({ ...settings.get(), ...change });
  try {
    localStorage.setItem('editor', JSON.stringify(settings.get()));
  } catch {
    // Without storage, the choice is lost when the page is closed.
  }
}

/** Text that opens the source in the editor. @param {{source: import('../stack.js').Source, children?: any}} props */
function SourceLink({ source, children }) {
  const href = editorAddress(useCell(settings), source);
  const text = children ?? html`<${Text} value=${`${source.path}:${source.line}`} limit=${300} dotted />`;
  return href ? html`<a class="source" href=${href} title="Open in the editor">${text}</a>` : text;
}

/** The place that the attributes name, with the settings of the editor. @param {{attributes: any}} props */
export function Code({ attributes }) {
  const { editor, folder } = useCell(settings);
  const source = sourceOf(attributes);
  if (!source) return null;
  const field = (/** @type {string} */ label, /** @type {any} */ rest) =>
    html`<label>${label}<input spellcheck=${false} autocomplete="off" ...${rest} /></label>`;
  const value = (/** @type {Event} */ event) => /** @type {HTMLInputElement} */ (event.target).value;
  return html`<div class="code" data-testid="code">
    <span class="mono"><${SourceLink} source=${source} /></span>
    <details>
      <summary>Editor</summary>
      ${field('Address', {
        list: 'editors',
        value: editor,
        'aria-invalid': !isEditor(editor),
        onChange: (/** @type {Event} */ event) => choose({ editor: value(event).trim() || EDITORS[0] }),
      })}
      <datalist id="editors">${EDITORS.map((one) => html`<option value=${one} />`)}</datalist>
      ${field('Folder of relative paths', {
        value: folder,
        placeholder: '/home/me/project',
        onChange: (/** @type {Event} */ event) => choose({ folder: value(event).trim() }),
      })}
    </details>
  </div>`;
}

/** A stack trace, scrolled to the frame that raised. @param {{text: string}} props */
export function Stack({ text }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const lines = text.trimEnd().split(/\r?\n/);
  const raised = raisedAt(lines);
  useLayoutEffect(() => {
    const { current } = frame;
    const box = current?.parentElement;
    if (box) box.scrollTop = current.offsetTop - box.clientHeight / 2;
  }, [text]);
  const omitted = lines.length - MAX_LINES;
  return html`<pre class="stack" tabindex="0" role="region" aria-label="Stack trace" data-testid="stack">${lines.map(
    (line, index) => {
      if (omitted > 0 && index >= MAX_LINES / 2 && index < lines.length - MAX_LINES / 2) {
        return index === MAX_LINES / 2 && `… ${count(omitted)} lines …\n`;
      }
      const source = sourceIn(line);
      const shown = html`<${Text} value=${line.trimStart()} limit=${2000} />`;
      const linked = source ? html`<${SourceLink} source=${source}>${shown}<//>` : shown;
      const indent = line.slice(0, line.length - line.trimStart().length);
      return index === raised
        ? html`<strong class="stack-raised" ref=${frame}>${indent}${linked}${'\n'}</strong>`
        : [indent, linked, '\n'];
    },
  )}</pre>`;
}
