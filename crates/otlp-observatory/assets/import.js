// Import of files with OTLP/JSON: chosen on the status page, or dropped on any page.
import { cell } from './cell.js';

/** Result of the last import, for the frame of the pages; empty if there is none. */
export const message = cell('');

/**
 * Sends a file to the observatory.
 *
 * @param {File} file
 * @returns {Promise<string>} the result
 */
async function send(file) {
  const response = await fetch('/import', { method: 'POST', body: file });
  const body = await response.json();
  const { spans, logs, points } = body.imported ?? { spans: 0, logs: 0, points: 0 };
  const imported = `${spans} spans, ${logs} log records and ${points} metric points imported`;
  if (!response.ok) return `${file.name}: ${body.error}${spans + logs + points > 0 ? `; before that, ${imported}` : ''}`;
  return `${file.name}: ${imported}${body.refused > 0 ? `, ${body.refused} refused` : ''}`;
}

/** Imports files one after the other. @param {Iterable<File>} files */
export async function importFiles(files) {
  const results = [];
  for (const file of [...files]) {
    message.set([...results, `${file.name}: importing`].join('; '));
    try {
      results.push(await send(file));
    } catch (error) {
      results.push(`${file.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    message.set(results.join('; '));
  }
}

/** Starts importing files that are dropped on the page. */
export function start() {
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    importFiles(event.dataTransfer?.files ?? []);
  });
}
