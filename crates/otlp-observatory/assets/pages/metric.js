// An instrument: charts of its rates and percentiles, exemplars that link to their trace, and a table of its series.
import { html, useEffect, useMemo } from '../html.js';
import { Chart, openNewest } from '../components/chart.js';
import { AGES, FilterForm } from '../components/filters.js';
import { Heatmap } from '../components/heatmap.js';
import { Empty, Loading, Panel, ErrorMessage } from '../components/parts.js';
import { Service, Text } from '../components/text.js';
import { filterAddress, readFilters, withFilter } from '../filters.js';
import { count, measured, plural } from '../format.js';
import { useKeys } from '../keys.js';
import { useLive } from '../live.js';
import { address, back, navigate } from '../router.js';
import {
  columns,
  extremes,
  fieldsOf,
  hasPercentiles,
  isHistogram,
  keyOf,
  labelOf,
  labelsOf,
  largest,
  lastBound,
  newestText,
  numberOf,
  withGroupNames,
} from '../series.js';
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
 * @returns {{label: string, field: string, points: any[], color?: string, bound?: number | null}[]}
 */
function mainLines(metric, chosen) {
  if (isHistogram(metric.type)) {
    const fields = hasPercentiles(metric.series) ? fieldsOf(metric.type) : ['mean'];
    return fields.map((field) => ({
      label: field,
      field,
      points: chosen?.points ?? [],
      color: PERCENTILE_COLORS[field],
      bound: lastBound(chosen?.points ?? [], field),
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
    ? hasPercentiles(metric.series)
      ? 'Percentiles'
      : 'Mean'
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
        lines=${main.map(({ label, color, bound }) => ({ label, color, bound, fill: main.length === 1 }))}
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
    ${
      metric.heatmap &&
      html`<${Panel} title="Distribution of all series" testid="heatmap-panel">
      <${Heatmap} heatmap=${metric.heatmap} unit=${metric.unit} label=${`Distribution of ${plain(metric.name)}`} />
    <//>`
    }
  </div>`;
}

/**
 * A column of the table of series: its title and the text of a series.
 *
 * @typedef {[title: string, text: (series: any) => string]} Column
 */

/** Returns the columns for a type of instrument. @param {any} metric @returns {Column[]} */
function tableColumns({ type, unit, series }) {
  const newest = (/** @type {string} */ field, of = unit) =>
    /** @type {Column} */ ([field, ({ points }) => newestText(points, field, of)]);
  const total = (/** @type {string} */ field, of = unit) =>
    /** @type {Column} */ ([field, (one) => measured(numberOf(one.total, field), of)]);
  const extreme = (/** @type {'min' | 'mean' | 'max'} */ field) =>
    /** @type {Column} */ ([field, ({ points }) => measured(extremes(points, 'value')[field], unit)]);
  if (isHistogram(type)) {
    const percentiles = hasPercentiles(series) ? fieldsOf(type).map((field) => newest(field)) : [];
    return [newest('rate', ''), ...percentiles, total('min'), total('mean'), total('max'), total('count', '')];
  }
  if (type === 'summary') return [total('count', ''), total('sum'), total('mean')];
  if (type === 'counter') return [newest('rate', ''), ['total', (one) => measured(numberOf(one.total, 'value'), unit)]];
  return [newest('value'), extreme('min'), extreme('mean'), extreme('max')];
}

/** @param {{metric: any, chosen: any, onChoose: (key: string) => void}} props */
function SeriesTable({ metric, chosen, onChoose }) {
  const shown = tableColumns(metric);
  const { labels, common } = labelsOf(metric.series);
  return html`<div class="scroll-x" tabindex="0">
    ${Object.keys(common).length > 0 && html`<p class="series-common"><${Text} value=${labelOf(common)} limit=${400} expand /></p>`}
    <table class="table" data-testid="series">
      <thead>
        <tr>
          <th scope="col">Attributes</th>
          ${shown.map(([title]) => html`<th scope="col" class="num">${title}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${metric.series.map((/** @type {any} */ series) => {
          const key = keyOf(series);
          return html`<tr key=${key} class=${series === chosen ? 'is-selected' : ''}>
            <td>
              <button type="button" class="row-link" aria-pressed=${series === chosen} onClick=${() => onChoose(key)}>
                <${Text} value=${labels.get(series)} limit=${300} />
              </button>
            </td>
            ${shown.map(([, text]) => html`<td class="num">${text(series)}</td>`)}
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

/** Describes how many series or groups are shown. @param {any} metric */
function countOf({ series, total_series: total, aggregate }) {
  const noun = aggregate ? 'groups' : 'series';
  return series.length < total ? `the largest ${count(series.length)} of ${count(total)} ${noun}` : `${count(total)} ${noun}`;
}

const SLOWLY_MS = 15_000;

/** Returns the attributes of an instrument. @param {any} metric @returns {string[]} */
function useKeysOf(metric) {
  const { body } = useLive(metric && address('/metrics', { text: metric.name, service: metric.service }), { every: SLOWLY_MS });
  const instrument = body?.instruments.find(
    (/** @type {any} */ one) => one.name === metric?.name && one.type === metric?.type,
  );
  return Object.keys(instrument?.attributes ?? {});
}

/** Returns the fields of the filter form. @param {any} metric @param {string[]} keys */
function fieldsOfForm(metric, keys) {
  const ages = AGES.filter(([age]) => age !== '' && age !== '15m');
  const fields = [{ name: 'from', label: 'Time', options: [['', 'last 15 min'], ...ages], narrow: true }];
  if (!metric || metric.type === 'summary') return fields;
  const names = [...keys, 'service.instance.id'].map((key) => [key, plain(key)]);
  const by = { name: 'by', label: 'Group by', options: [['', 'nothing'], ...names], narrow: true };
  if (isHistogram(metric.type)) return [...fields, by];
  const usual = metric.type === 'gauge' ? 'avg' : 'sum';
  const others = ['sum', 'avg', 'max'].filter((one) => one !== usual).map((one) => [one, one]);
  const aggregate = { name: 'aggregate', label: 'Combine by', options: [['', usual], ...others], narrow: true };
  return [...fields, by, ...(metric.aggregate ? [aggregate] : [])];
}

/** @param {{argument: string, path: string, query: string, fragment: string}} props */
export function Page({ argument, path, query, fragment }) {
  const filters = readFilters(query);
  const { body, error } = useLive(filterAddress(path, { from: '15m', heatmap: 'true', ...filters }));
  const by = String(filters.by ?? '');
  const metric = useMemo(() => body && (by ? { ...body, series: withGroupNames(body.series, by) } : body), [body, by]);
  const keys = useKeysOf(metric);
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
    fields=${fieldsOfForm(metric, keys)}
  />`;
  if (!metric) {
    if (!error) return html`<${Loading} />`;
    return html`${form}<${Empty} title="Metric not found." page><${ErrorMessage} error=${error} /><p><a href="/metrics">All metrics</a></p><//>`;
  }
  const chosen =
    metric.series.find((/** @type {any} */ one) => keyOf(one) === fragment) ?? metric.series[0];
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
          <span data-testid="series-count">${countOf(metric)}</span>
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
