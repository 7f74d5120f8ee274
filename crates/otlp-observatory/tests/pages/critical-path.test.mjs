// The critical path and the statistics of a trace.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { criticalPath } from '../../assets/critical-path.js';
import { selfTime, statistics } from '../../assets/statistics.js';
import { layOutTrace, span } from './spans.mjs';

/** Returns the parts as `key from-to`, in order of time. */
function path(spans) {
  const parts = [...criticalPath(layOutTrace(spans))].flatMap(([row, found]) =>
    found.map((part) => ({ row, ...part })),
  );
  return parts.sort((one, other) => one.from - other.from).map(({ row, from, to }) => `${row.key} ${from}-${to}`);
}

test('one child after the other is on the path, with the gaps between them', () => {
  assert.deepEqual(path([span('root', null, 0, 100), span('a', 'root', 10, 20), span('b', 'root', 40, 50)]), [
    'root 0-10',
    'a 10-30',
    'root 30-40',
    'b 40-90',
    'root 90-100',
  ]);
});

test('of parallel children, the last to end is on the path', () => {
  const parallel = [span('root', null, 0, 100), span('slow', 'root', 10, 80), span('fast', 'root', 10, 30)];
  assert.deepEqual(path(parallel), ['root 0-10', 'slow 10-90', 'root 90-100']);
});

test('the path descends', () => {
  assert.deepEqual(path([span('root', null, 0, 100), span('a', 'root', 0, 100), span('b', 'a', 20, 80)]), [
    'a 0-20',
    'b 20-100',
  ]);
});

test('a task that outlasts the request is on the path', () => {
  const spans = [span('request', null, 0, 50), span('send', 'request', 20, 5), span('task', 'send', 60, 40)];
  assert.deepEqual(path(spans), ['request 0-20', 'send 20-25', 'task 60-100']);
});

test('a child whose clock is early covers no time twice', () => {
  const spans = [span('root', null, 1000, 100), span('early', 'root', 0, 1050), span('before', 'root', 0, 10)];
  assert.deepEqual(path(spans), ['early 0-1050', 'root 1050-1100']);
  assert.deepEqual(path([]), []);
});

test('self time is without the time of children, however they overlap', () => {
  const self = (...children) => selfTime(layOutTrace([span('root', null, 0, 100), ...children])[0]);
  assert.equal(self(), 100);
  assert.equal(self(span('a', 'root', 10, 20), span('b', 'root', 20, 20)), 70);
  assert.equal(self(span('a', 'root', -50, 60), span('b', 'root', 90, 60)), 80);
  assert.equal(self(span('a', 'root', 200, 10)), 100);
});

test('spans are counted by service and name, the largest self time first', () => {
  const rows = layOutTrace([
    span('root', null, 0, 100, { name: 'GET' }),
    span('a', 'root', 10, 20, { name: 'SELECT' }),
    span('b', 'root', 40, 50, { name: 'SELECT', status: 'error' }),
    span('c', 'a', 10, 5, { name: 'GET', service: 'stock' }),
  ]);
  assert.deepEqual(statistics(rows, criticalPath(rows)), [
    { service: 'shop', name: 'SELECT', count: 2, errors: 1, total: 70, self: 65, critical: 65, max: 50 },
    { service: 'shop', name: 'GET', count: 1, errors: 0, total: 100, self: 30, critical: 30, max: 100 },
    { service: 'stock', name: 'GET', count: 1, errors: 0, total: 5, self: 5, critical: 5, max: 5 },
  ]);
});
