// All instruments as small charts. A chart polls its points only while it is visible.
import { html, useEffect, useMemo, useRef, useState } from '../html.js';
import { Chart } from '../components/chart.js';
import { FilterForm, useServices } from '../components/filters.js';
import { Empty, Loading, ErrorMessage } from '../components/parts.js';
import { Service, Text } from '../components/text.js';
import { filterAddress, readFilters } from '../filters.js';
import { count, measured } from '../format.js';
import { useRowKeys } from '../keys.js';
import { useLive } from '../live.js';
import { address } from '../router.js';
import { columns, headline, labelOf, newestText, numberOf } from '../series.js';
import { plain } from '../text.js';

const MAX_LINES = 4;
const MAX_CARDS = 500;
const WINDOW = '15m';

// Points arrive every few seconds at most, and there may be many charts.
const LIST_EVERY_MS = 5000;
const CHART_EVERY_MS = 5000;

/** @param {{name: string, service: string}} instrument @param {Record<string, string>} [more] */
const metricAddress = ({ name, service }, more) => address(`/metrics/${encodeURIComponent(name)}`, { service, ...more });

/** Returns whether an element is visible or close to the viewport. @param {{current: HTMLElement | null}} element */
function useOnScreen(element) {
  const [is, setIs] = useState(false);
  useEffect(() => {
    if (!element.current) return undefined;
    const observer = new IntersectionObserver(([entry]) => setIs(entry.isIntersecting), { rootMargin: '200px' });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return is;
}

/** @param {{metric: any}} props */
function Sparkline({ metric }) {
  const field = headline(metric);
  const { series } = metric;
  const data = useMemo(() => columns(series.map(({ points }) => ({ label: '', field, points }))), [series]);
  const unit = field === 'rate' ? '' : metric.unit;
  const value = newestText(series[0]?.points ?? [], field, unit);
  const total = metric.type === 'counter' ? numberOf(series[0]?.total ?? {}, 'value') : null;
  const about = [
    total === null ? '' : `${measured(total, metric.unit)} in total`,
    field === 'value' || field === 'rate' ? '' : field.replace('quantiles:', 'quantile '),
    metric.total_series > 1 ? `largest of ${count(metric.total_series)} series` : '',
  ]
    .filter(Boolean)
    .join(', ');
  return html`<p class="card-value num">
      <strong>${value}${field === 'rate' ? '/s' : ''}</strong>
      <span class="muted"> ${about}</span>
    </p>
    <${Chart}
      lines=${series.map(({ attributes }) => ({ label: labelOf(attributes), fill: series.length === 1 }))}
      data=${data}
      unit=${unit}
      height=${110}
      legend=${false}
      label=${`${plain(metric.name)}, ${field}`}
    />`;
}

/** @param {{instrument: any}} props */
function Card({ instrument }) {
  const card = useRef(null);
  const onScreen = useOnScreen(card);
  const { body } = useLive(onScreen ? metricAddress(instrument, { from: WINDOW, limit: String(MAX_LINES) }) : null, { every: CHART_EVERY_MS });
  return html`<li class="card" ref=${card} data-testid="instrument" data-name=${instrument.name}>
    <div class="card-head">
      <a class="row-link" data-row href=${metricAddress(instrument)}><${Text} value=${instrument.name} limit=${120} dotted /></a>
      <span class="tag">${instrument.type.replace('_', ' ')}</span>
    </div>
    <p class="card-about"><${Service} name=${instrument.service} /> <span class="muted"><${Text} value=${instrument.description} limit=${140} /></span></p>
    ${body ? html`<${Sparkline} metric=${body} />` : html`<div class="chart-space"></div>`}
  </li>`;
}

/** @param {{query: string}} props */
export function Page({ query }) {
  const services = useServices();
  const filters = readFilters(query);
  const { body, error } = useLive(filterAddress('/metrics', filters), { every: LIST_EVERY_MS });
  const list = useRef(null);
  useRowKeys(list);
  const filtered = Object.keys(filters).length > 0;
  const hidden = body ? Math.max(0, body.instruments.length - MAX_CARDS) + body.left_out : 0;
  return html`
    <h1 class="screen-reader-title">Metrics</h1>
    <${FilterForm}
      path="/metrics"
      query=${query}
      attributes=${false}
      fields=${[
        { name: 'text', label: 'Text', placeholder: 'name, description', search: true },
        { name: 'service', label: 'Service', options: services },
      ]}
    />
    <${ErrorMessage} error=${error} />
    ${
      body === null
        ? !error && html`<${Loading} />`
        : body.instruments.length === 0
          ? html`<${Empty} title=${filtered ? 'No instruments match these filters.' : 'No metrics yet.'}>
            <p>${filtered ? html`<a href="/metrics">Show all</a>` : 'By default, services send metrics once a minute.'}</p>
          <//>`
          : html`<ul class="cards" ref=${list} data-testid="instruments">
            ${body.instruments
              .slice(0, MAX_CARDS)
              .map(
                (/** @type {any} */ one) =>
                  html`<${Card} key=${`${one.service} ${one.name} ${one.type}`} instrument=${one} />`,
              )}
          </ul>
          ${hidden > 0 && html`<p class="muted more">and ${count(hidden)} more; use the search</p>`}`
    }
  `;
}
