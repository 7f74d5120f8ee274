// Links from telemetry to the source in an editor. Attributes name files as the program knows them, so relative paths need
// the folder of the sources. Pure functions.

/** Addresses of editors; `{path}` and `{line}` are replaced. */
export const EDITORS = [
  'vscode://file/{path}:{line}',
  'cursor://file/{path}:{line}',
  'zed://file/{path}:{line}',
  'idea://open?file={path}&line={line}',
];

/** @param {any} attributes @returns {import('./stack.js').Source | null} */
export function sourceOf(attributes) {
  const path = attributes?.['code.file.path'] ?? attributes?.['code.filepath'];
  const line = Number(attributes?.['code.line.number'] ?? attributes?.['code.lineno'] ?? 1);
  return typeof path === 'string' && path ? { path, line: Number.isInteger(line) ? line : 1 } : null;
}

const isAbsolute = (/** @type {string} */ path) => /^([\\/]|[A-Za-z]:[\\/])/.test(path);

/** Whether an address may be opened: it must not run a script in the page. @param {string} template */
export const isEditor = (template) => /^(?!javascript:|data:|vbscript:|blob:)[a-z][a-z0-9+.-]*:/i.test(template.trim());

/**
 * Returns the address that opens a file in the editor; null for a relative path without a folder.
 *
 * @param {{editor: string, folder: string}} settings
 * @param {import('./stack.js').Source} source
 */
export function editorAddress({ editor, folder }, { path, line }) {
  const whole = isAbsolute(path) ? path : folder && `${folder.replace(/[\\/]+$/, '')}/${path.replace(/^\.[\\/]/, '')}`;
  if (!whole || !isEditor(editor)) return null;
  const slashed = encodeURI(whole.replaceAll('\\', '/')).replace(/[?#&]/g, encodeURIComponent);
  return editor
    .trim()
    .replace('/{path}', () => `/${slashed.replace(/^\/+/, '')}`)
    .replace('{path}', () => slashed)
    .replace('{line}', () => String(line));
}
