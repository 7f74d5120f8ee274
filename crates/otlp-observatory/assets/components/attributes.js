// A table of attributes. Each value links to the traces or logs with the same value.
import { html } from '../html.js';
import { indentedJson, plain, textOf } from '../text.js';
import { address } from '../router.js';
import { Stack } from './code.js';
import { Text } from './text.js';

// Maximum length of a value that is used as a filter in an address.
const LONGEST_FILTER = 200;

const MAX_ROWS = 256;

/**
 * A value: JSON in a string is formatted, web addresses are links, and stack traces are whole.
 *
 * @param {{name: string, value: unknown}} props
 */
function Value({ name, value }) {
  if (typeof value === 'string' && /stack_?trace$/.test(name)) return html`<${Stack} text=${value} />`;
  const json = typeof value === 'string' ? indentedJson(value) : null;
  if (json === null) return html`<${Text} value=${value} limit=${600} expand links />`;
  return html`<pre class="json" tabindex="0" role="region" aria-label="JSON"
    ><${Text} value=${json} limit=${4000} expand links
  /></pre>`;
}

/**
 * @param {{attributes: Record<string, unknown>, page?: string | null}} props
 *   `page`: list that the links filter; null for no links
 */
export function Attributes({ attributes, page = '/traces' }) {
  const rows = Object.entries(attributes ?? {}).sort(([one], [other]) => (one < other ? -1 : 1));
  if (rows.length === 0) return html`<p class="muted small">none</p>`;
  return html`<table class="attributes">
    <tbody>
      ${rows.slice(0, MAX_ROWS).map(([name, value]) => {
        const text = textOf(value);
        const scalar = typeof value !== 'object' && text.length <= LONGEST_FILTER;
        return html`<tr key=${name}>
          <th scope="row"><${Text} value=${name} limit=${120} dotted /></th>
          <td class=${typeof value === 'string' ? '' : 'value-other'}>
            <${Value} name=${name} value=${value} />
            ${
              page &&
              scalar &&
              html`<a
              class="find"
              href=${address(page, { attribute: `${name}=${text}` })}
              aria-label=${`${page.slice(1)} with ${plain(name)} = ${plain(text)}`}
              title=${`Find ${page.slice(1)} with this value`}
              >find</a
            >`
            }
          </td>
        </tr>`;
      })}
    </tbody>
    ${rows.length > MAX_ROWS && html`<caption>and ${rows.length - MAX_ROWS} more in the JSON</caption>`}
  </table>`;
}
