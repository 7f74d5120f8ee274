// An instrument: charts of its rates and percentiles, exemplars that link to their trace, and a table of its series.
import { html, useEffect, useMemo } from '../html.js';
import { Chart, openNewest } from '../components/chart.js';
import { AGES, FilterForm } from '../components/filters.js';
import { Empty, Loading, Panel, ErrorMessage } from '../components/parts.js';
import { Service, Text } from '../components/text.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { count, measured, plural } from '../format.js';
import { useKeys } from '../keys.js';
import { useLive } from '../live.js';
import { address, back, navigate } from '../router.js';
import { columns, fieldsOf, isHistogram, keyOf, labelOf, labelsOf, largest, latest } from '../series.js';
import { plain } from '../text.js';

const MAX_LINES = 8;

const PERCENTILE_COLORS = /** @type {Record<string, string>} */ ({
  p50: 'var(--line-2)',
  p95: 'var(--line-0)',
  p99: 'var(--line-1)',
});

/**
 * Returns the lines of the main chart: percentiles of the chosen series, or the values of the largest series.
 *
 * @param {any} metric
 * @param {any} chosen
 */
function mainLines(metric, chosen) {
  if (isHistogram(metric.type)) {
    return fieldsOf(metric.type).map((field) => ({
      label: field,
      field,
      points: chosen?.points ?? [],
      color: PERCENTILE_COLORS[field],
    }));
  }
  if (metric.type === 'summary') {
    const quantiles = Object.keys(chosen?.points.at(-1)?.quantiles ?? {});
    return quantiles.map((quantile) => ({ label: quantile, field: `quantiles:${quantile}`, points: chosen.points }));
  }
  return seriesLines(metric, fieldsOf(metric.type)[0]);
}

/** Returns a line for each of the largest series. @param {any} metric @param {string} field */
function seriesLines(metric, field) {
  const { labels } = labelsOf(metric.series);
  return largest(metric.series, field, MAX_LINES).map((series) => ({
    label: labels.get(series) ?? '',
    field,
    points: series.points,
  }));
}

/** @param {{metric: any, chosen: any}} props */
function Charts({ metric, chosen }) {
  const main = useMemo(() => mainLines(metric, chosen), [metric, chosen]);
  const data = useMemo(() => columns(main), [main]);
  const distribution = isHistogram(metric.type);
  const rates = useMemo(() => seriesLines(metric, 'rate'), [metric]);
  const rateData = useMemo(() => columns(rates), [rates]);
  const single = distribution || metric.type === 'summary';
  const title = distribution
    ? 'Percentiles'
    : metric.type === 'counter'
      ? 'Rate per second'
      : metric.type === 'summary'
        ? 'Quantiles'
        : 'Value';
  return html`<div class="charts">
    <${Panel}
      title=${title}
      testid="main-chart"
      actions=${single && metric.series.length > 1 && html`<span class="muted clip"><${Text} value=${labelsOf(metric.series).labels.get(chosen)} /></span>`}
    >
      <${Chart}
        lines=${main.map(({ label, color }) => ({ label, color, fill: main.length === 1 }))}
        data=${data}
        unit=${metric.type === 'counter' ? '' : metric.unit}
        height=${260}
        exemplars=${metric.exemplars}
        label=${`${title} of ${plain(metric.name)}`}
      />
    <//>
    ${
      distribution &&
      html`<${Panel} title="Rate per second" testid="rate-chart">
      <${Chart}
        lines=${rates.map(({ label }) => ({ label, fill: rates.length === 1 }))}
        data=${rateData}
        unit=""
        height=${260}
        label=${`Rate of ${plain(metric.name)}`}
      />
    <//>`
    }
  </div>`;
}

/** @param {{metric: any, chosen: any, onChoose: (key: string) => void}} props */
function SeriesTable({ metric, chosen, onChoose }) {
  const fields = isHistogram(metric.type)
    ? ['rate', ...fieldsOf(metric.type)]
    : metric.type === 'summary'
      ? ['count', 'sum']
      : metric.type === 'counter'
        ? ['rate', 'value']
        : ['value'];
  const unitOf = (/** @type {string} */ field) => (field === 'rate' || field === 'count' ? '' : metric.unit);
  const { labels, common } = labelsOf(metric.series);
  return html`<div class="scroll-x" tabindex="0">
    ${Object.keys(common).length > 0 && html`<p class="series-common"><${Text} value=${labelOf(common)} limit=${400} expand /></p>`}
    <table class="table" data-testid="series">
      <thead>
        <tr>
          <th scope="col">Attributes</th>
          ${fields.map((field) => html`<th scope="col" class="num">${field}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${largest(metric.series, fields[0], metric.series.length).map((series) => {
          const key = keyOf(series);
          return html`<tr key=${key} class=${series === chosen ? 'is-selected' : ''}>
            <td>
              <button type="button" class="row-link" aria-pressed=${series === chosen} onClick=${() => onChoose(key)}>
                <${Text} value=${labels.get(series)} limit=${300} />
              </button>
            </td>
            ${fields.map((field) => html`<td class="num">${measured(latest(series.points, field), unitOf(field))}</td>`)}
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

/** @param {{argument: string, path: string, query: string, fragment: string}} props */
export function Page({ argument, path, query, fragment }) {
  const filters = readFilters(query);
  const { body: metric, error } = useLive(filterAddress(path, { from: '15m', ...filters }));
  useKeys({
    Escape: ['back to all metrics', () => back('/metrics')],
    e: ['open the newest exemplar', () => openNewest(metric?.exemplars ?? [])],
  });
  useEffect(() => {
    document.title = `${plain(argument)} · Observatory`;
  }, [argument]);
  const form = html`<${FilterForm}
    path=${path}
    query=${query}
    fields=${[{ name: 'from', label: 'Time', options: [['', 'last 15 min'], ...AGES.filter(([age]) => age !== '' && age !== '15m')], narrow: true }]}
  />`;
  if (!metric) {
    if (!error) return html`<${Loading} />`;
    return html`${form}<${Empty} title="Metric not found." page><${ErrorMessage} error=${error} /><p><a href="/metrics">All metrics</a></p><//>`;
  }
  const chosen =
    metric.series.find((/** @type {any} */ one) => keyOf(one) === fragment) ?? largest(metric.series, 'rate', 1)[0];
  const others = (metric.matches ?? []).filter((/** @type {any} */ one) => one.service !== metric.service);
  return html`
    <p class="crumbs"><a href="/metrics">Metrics</a></p>
    <header class="trace-head">
      <div>
        <h1 class="mono"><${Text} value=${metric.name} limit=${200} /></h1>
        <p class="facts">
          <${Service} name=${metric.service} />
          <span class="tag">${metric.type.replace('_', ' ')}</span>
          ${metric.unit && html`<span>unit <code><${Text} value=${metric.unit} limit=${40} /></code></span>`}
          <span>${count(metric.series.length)} series</span>
          <span>${plural(metric.exemplars.length, 'exemplar')}</span>
          ${others.map((/** @type {any} */ one) => html`<a href=${address(path, { service: one.service })}><${Service} name=${one.service} /></a>`)}
        </p>
        ${metric.description && html`<p class="muted"><${Text} value=${metric.description} limit=${400} expand /></p>`}
      </div>
    </header>
    ${form}
    <${ErrorMessage} error=${error} />
    ${
      metric.series.length === 0
        ? html`<${Empty} title="No points in this period."><p><a href=${filterAddress(path, withFilter(filters, 'from', '24h'))}>Show the last day</a></p><//>`
        : html`<${Charts} metric=${metric} chosen=${chosen} />
          <${Panel} title="Series">
            <${SeriesTable}
              metric=${metric}
              chosen=${chosen}
              onChoose=${(/** @type {string} */ key) => navigate(`${path}${query}#${key}`, { replace: true })}
            />
          <//>`
    }
  `;
}
