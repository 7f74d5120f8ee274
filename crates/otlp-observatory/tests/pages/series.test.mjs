// Columns of charts, labels of series, the layout of the map, and colours of services.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { curve, edgeId, layOutGraph, nodeName } from '../../assets/graph.js';
import { hueOf } from '../../assets/hue.js';
import {
  columns,
  extremes,
  headline,
  isolated,
  keyOf,
  labelOf,
  labelsOf,
  largest,
  lastBound,
  latest,
  newestText,
  withGroupNames,
} from '../../assets/series.js';

const at = (seconds, values) => ({ time_unix_nano: `${seconds}000000000`, ...values });

test('lines with different times share an axis', () => {
  const one = { label: 'one', field: 'value', points: [at(1, { value: 10 }), at(3, { value: 30 })] };
  const other = { label: 'other', field: 'value', points: [at(2, { value: '20' }), at(3, { value: null })] };
  assert.deepEqual(columns([one, other]), [
    [1, 2, 3],
    [10, undefined, 30],
    [undefined, 20, null],
  ]);
  assert.deepEqual(columns([]), [[]]);
});

test('lines are interrupted where points are missing, and only there', () => {
  const points = [1, 2, 3, 9, 10].map((seconds) => at(seconds, { value: seconds }));
  const other = [1, 3, 5, 7, 9].map((seconds) => at(seconds, { value: 0 }));
  const [times, line, slower] = columns([
    { label: '', field: 'value', points },
    { label: '', field: 'value', points: other },
  ]);
  assert.deepEqual(times, [1, 2, 3, 4, 5, 7, 9, 10]);
  assert.deepEqual(line, [1, 2, 3, null, undefined, undefined, 9, 10]);
  assert.deepEqual(slower, [0, undefined, 0, undefined, 0, 0, 0, undefined]);
});

test('points without neighbours are isolated', () => {
  assert.deepEqual(isolated([1, undefined, 2, null, 3, undefined, null, 4, 5]), [4]);
  assert.deepEqual(isolated([null, 7, null, 8]), [1, 3]);
  assert.deepEqual(isolated([]), []);
});

test('percentiles beyond the last bound are marked', () => {
  const points = [at(1, { p50: 1, p95: 2.5, above: ['p95'] }), at(2, { p50: null, p95: null })];
  assert.equal(newestText(points, 'p95', 's'), '> 2.5 s');
  assert.equal(newestText(points, 'p50', 's'), '1 s');
  assert.equal(newestText([], 'p50', 's'), '–');
  assert.equal(lastBound(points, 'p95'), 2.5);
  assert.equal(lastBound(points, 'p50'), null);
});

test('extremes skip missing values', () => {
  const points = [at(1, { value: 4 }), at(2, { value: null }), at(3, { value: -1 }), at(4, { value: '0' })];
  assert.deepEqual(extremes(points, 'value'), { min: -1, mean: 1, max: 4 });
  assert.deepEqual(extremes([], 'value'), { min: null, mean: null, max: null });
});

test('values that are not numbers are omitted', () => {
  const points = [at(1, { value: 'NaN' }), at(2, { value: {} }), at(3, {})];
  assert.deepEqual(columns([{ label: '', field: 'value', points }])[1], [null, null, null]);
});

test('the newest number skips missing values', () => {
  assert.equal(latest([at(1, { p95: 5 }), at(2, { p95: null })], 'p95'), 5);
  assert.equal(latest([], 'p95'), null);
  assert.equal(latest([at(1, { quantiles: { 0.5: 7 } })], 'quantiles:0.5'), 7);
});

test('series are ordered by their newest number', () => {
  const series = [3, null, 9].map((value) => ({ attributes: { value }, points: [at(1, { value })] }));
  assert.deepEqual(
    largest(series, 'value', 2).map(({ attributes }) => attributes.value),
    [9, 3],
  );
});

test('labels do not depend on the order of attributes', () => {
  assert.equal(labelOf({ b: 1, a: ['x'] }), 'a=["x"], b=1');
  assert.equal(labelOf({ a: ['x'], b: 1 }), labelOf({ b: 1, a: ['x'] }));
  assert.equal(labelOf({}), 'all');
});

const series = (attributes, resource = {}) => ({ attributes, resource });

test('labels omit attributes that all series share', () => {
  const several = [
    series({ method: 'GET', route: '/a' }, { host: 'x' }),
    series({ method: 'GET', route: '/b' }, { host: 'x' }),
    series({ method: 'GET' }, { host: 'x' }),
  ];
  const { labels, common } = labelsOf(several);
  assert.deepEqual([...labels.values()], ['route=/a', 'route=/b', 'all']);
  assert.deepEqual(common, { method: 'GET' });
  assert.deepEqual([...labelsOf([]).labels.values()], []);
});

test('a group without the attribute has a name', () => {
  const groups = withGroupNames([series({ route: '/a' }), series({})], 'route');
  assert.deepEqual(
    groups.map(({ attributes }) => attributes),
    [{ route: '/a' }, { route: '(none)' }],
  );
});

test('two processes with the same attributes have two series', () => {
  const one = series({ route: '/a' }, { 'service.instance.id': '1' });
  const other = series({ route: '/a' }, { 'service.instance.id': '2' });
  assert.deepEqual([...labelsOf([one, other]).labels.values()], ['service.instance.id=1', 'service.instance.id=2']);
  assert.notEqual(keyOf(one), keyOf(other));
  assert.equal(keyOf(one), keyOf(structuredClone(one)));
});

test('every instrument type has a headline field', () => {
  assert.equal(headline({ type: 'counter', series: [] }), 'rate');
  assert.equal(headline({ type: 'exponential_histogram', series: [] }), 'p95');
  const withoutBounds = { points: [at(1, { count: 2, p95: null, mean: 4 })] };
  assert.equal(headline({ type: 'histogram', series: [withoutBounds] }), 'mean');
  assert.equal(
    headline({ type: 'summary', series: [{ points: [{ quantiles: { 0.5: 1, 0.99: 2 } }] }] }),
    'quantiles:0.99',
  );
  assert.equal(headline({ type: 'summary', series: [] }), 'count');
});

test('nodes of the map do not overlap', () => {
  const nodes = ['clients', 'app', 'worker', 'db', 'queue'].map((name) => ({ id: name, name }));
  const edges = [
    ['clients', 'app'],
    ['app', 'db'],
    ['app', 'queue'],
    ['queue', 'worker'],
    ['worker', 'db'],
    ['worker', 'worker'],
    ['app', 'gone'],
  ].map(([from, to]) => ({ from, to }));
  for (const upright of [false, true]) {
    const places = layOutGraph(nodes, edges, upright);
    const boxes = [...places.nodes.values()];
    for (const [index, one] of boxes.entries()) {
      assert.ok(one.x - one.width / 2 >= 0 && one.x + one.width / 2 <= places.width);
      for (const other of boxes.slice(index + 1)) {
        const apart =
          Math.abs(one.x - other.x) >= (one.width + other.width) / 2 ||
          Math.abs(one.y - other.y) >= (one.height + other.height) / 2;
        assert.ok(apart, JSON.stringify([one, other]));
      }
    }
    assert.equal(places.edges.get(edgeId('app', 'gone')), undefined);
    assert.match(curve(places.edges.get(edgeId('app', 'db')).points), /^M[\d.,-]+/);
  }
});

test('long node names are truncated', () => {
  assert.equal(nodeName('short'), 'short');
  assert.equal(nodeName('x'.repeat(100)).length, 32);
});

test("a service's hue is stable and never red", () => {
  assert.equal(hueOf('pressroom-app'), hueOf('pressroom-app'));
  assert.notEqual(hueOf('pressroom-app'), hueOf('pressroom-worker'));
  for (let index = 0; index < 500; index += 1) {
    const hue = hueOf(`service ${index}`);
    assert.ok(hue >= 60 && hue <= 330, String(hue));
  }
});
