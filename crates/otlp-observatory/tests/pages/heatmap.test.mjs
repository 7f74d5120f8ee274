// Cells and labels of the heat map.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boundLabels, bucketText, cellText, cellsOf, summary } from '../../assets/heatmap.js';

const heatmap = {
  buckets: [
    { from: 0, to: 0.5 },
    { from: 0.5, to: 2.5 },
    { from: 2.5, to: null },
  ],
  columns: [
    { time_unix_nano: '1000000000', counts: [3, 0, 0] },
    { time_unix_nano: '2000000000', counts: [0, 255, 1] },
  ],
};

test('only buckets with observations are cells, few of them still visible', () => {
  const cells = cellsOf(heatmap);
  assert.deepEqual(
    cells.map(({ column, row, shade }) => [column, row, shade]),
    [
      [0, 0, 0.25],
      [1, 1, 1],
      [1, 2, 0.125],
    ],
  );
  assert.deepEqual(cellsOf({ buckets: [], columns: [] }), []);
});

test('buckets are named by their bounds', () => {
  assert.deepEqual(
    heatmap.buckets.map((bucket) => bucketText(bucket, 's')),
    ['0 to 500 ms', '500 ms to 2.5 s', '> 2.5 s'],
  );
  assert.equal(bucketText({ from: null, to: 1 }, ''), 'up to 1');
  assert.equal(bucketText({ from: 0, to: 0 }, ''), '0');
  assert.match(cellText(heatmap, 1, 1, 's'), /: 255 of 500 ms to 2\.5 s$/);
});

test('there are at most six labels', () => {
  assert.deepEqual(boundLabels(heatmap, 's'), [
    { row: 0, text: '0' },
    { row: 1, text: '500 ms' },
    { row: 2, text: '2.5 s' },
  ]);
  const buckets = Array.from({ length: 40 }, (_, row) => ({ from: row, to: row + 1 }));
  assert.equal(boundLabels({ buckets, columns: [] }, '').length, 6);
});

test('the summary names the bucket with most observations', () => {
  assert.equal(summary(heatmap, 's'), '259 observations, most of them 500 ms to 2.5 s');
  assert.equal(summary({ buckets: [], columns: [] }, 's'), 'no observations');
});
