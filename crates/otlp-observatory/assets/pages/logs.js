// The live log: records newest first, filtered by the address.
import { html, useRef, useState } from '../html.js';
import { get } from '../api.js';
import { AGES, FilterForm, useServices } from '../components/filters.js';
import { Empty, Loading, ErrorMessage } from '../components/parts.js';
import { LogList } from '../components/log-list.js';
import { filterAddress, readFilters } from '../filters.js';
import { useKeys, useRowKeys } from '../keys.js';
import { navigate } from '../router.js';
import { MAX_LINES, useTail } from '../tail.js';

/** @type {[string, string][]} */
const LEVELS = [
  ['', 'all'],
  ['debug', 'debug and above'],
  ['info', 'info and above'],
  ['warn', 'warn and above'],
  ['error', 'error and above'],
  ['fatal', 'fatal'],
];

/** Opens the trace of the focused line. */
function openTrace() {
  const link = document.activeElement?.closest('.log')?.querySelector('.log-trace');
  const href = link?.getAttribute('href');
  if (!href) return false;
  navigate(href);
  return undefined;
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const services = useServices();
  const filters = readFilters(query);
  const { logs, next, error, append } = useTail(filters);
  const [fetching, setFetching] = useState(false);
  const list = useRef(null);
  useRowKeys(list);
  useKeys({ t: ["open the record's trace", openTrace] });
  const fetchOlder = async () => {
    setFetching(true);
    try {
      const response = await get(filterAddress('/logs', { ...filters, before: next ?? '', limit: '200' }));
      append(response?.body.logs ?? [], response?.body.next ?? null);
    } catch {
      // The polling of the live log reports the same error.
    } finally {
      setFetching(false);
    }
  };
  const filtered = Object.keys(filters).length > 0;
  return html`
    <h1 class="screen-reader-title">Logs</h1>
    <${FilterForm}
      path="/logs"
      query=${query}
      language="logs"
      fields=${[
        { name: 'text', label: 'Text', placeholder: 'any text in a record', search: true },
        { name: 'service', label: 'Service', options: services },
        { name: 'level', label: 'Level', options: LEVELS },
        { name: 'from', label: 'Time', options: AGES, narrow: true },
      ]}
    />
    <${ErrorMessage} error=${error} />
    ${
      logs === null
        ? !error && html`<${Loading} />`
        : logs.length === 0
          ? html`<${Empty} title=${filtered ? 'No records match these filters.' : 'No logs yet.'}>
            <p>${filtered ? html`<a href="/logs">Show all</a>` : html`<a href="/">How to send logs</a>`}</p>
          <//>`
          : html`<div class="panel" ref=${list}><${LogList} logs=${logs} /></div>`
    }
    ${
      next &&
      logs !== null &&
      logs.length < MAX_LINES &&
      html`<p class="more"><button type="button" class="button" data-testid="older" disabled=${fetching} onClick=${fetchOlder}>Older records</button></p>`
    }
  `;
}
