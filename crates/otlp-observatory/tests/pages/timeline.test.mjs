// The time scale of a trace.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { duration } from '../../assets/format.js';
import { follow, join, minimap, pan, place, ticks, within, zoom } from '../../assets/timeline.js';
import { layOutTrace, span } from './spans.mjs';

const WHOLE = { from: 0, to: 10_000 };

test('bars are within the range', () => {
  assert.deepEqual(place({ start: 1000, end: 5000 }, WHOLE), { left: 0.1, width: 0.4, outside: null });
  assert.deepEqual(place({ start: -500, end: 99_500 }, WHOLE), { left: 0, width: 1, outside: null });
  assert.deepEqual(place({ start: -500, end: -1 }, WHOLE), { left: 0, width: 0, outside: 'before' });
  assert.deepEqual(place({ start: 10_001, end: 10_001 }, WHOLE), { left: 1, width: 0, outside: 'after' });
  assert.deepEqual(place({ start: 0, end: 0 }, { from: 0, to: 0 }), { left: 0, width: 0, outside: null });
});

test('parts that cannot be told apart are joined', () => {
  const parts = [
    { from: 500, to: 600 },
    { from: 100, to: 200 },
    { from: 205, to: 206 },
    { from: 120, to: 150 },
    { from: -9, to: -1 },
    { from: 20_000, to: 20_001 },
  ];
  const [first, second] = [
    { from: 100, to: 206 },
    { from: 500, to: 600 },
  ];
  assert.deepEqual(join(parts, WHOLE), [first, second]);
  const many = Array.from({ length: 40_000 }, (_, index) => ({ from: index, to: index + 0.5 }));
  assert.equal(join(many, { from: 0, to: 40_000 }).length, 1);
});

test('a drag selects a range in either direction, within the trace', () => {
  assert.deepEqual(within({ from: 8000, to: 6000 }, WHOLE), { from: 6000, to: 8000 });
  assert.deepEqual(within({ from: -1000, to: 2000 }, WHOLE), { from: 0, to: 3000 });
  assert.deepEqual(within({ from: 9990, to: 9990 }, WHOLE), { from: 9900, to: 10_000 });
  assert.deepEqual(within({ from: 0, to: 5 }, { from: 0, to: 7 }), { from: 0, to: 7 });
});

test('zoom and pan stay within the trace', () => {
  const half = zoom(WHOLE, 2, WHOLE);
  assert.deepEqual(half, { from: 2500, to: 7500 });
  assert.deepEqual(pan(half, 0.2, WHOLE), { from: 3500, to: 8500 });
  assert.deepEqual(pan(half, -9, WHOLE), { from: 0, to: 5000 });
  assert.deepEqual(zoom(half, 0.1, WHOLE), WHOLE);
});

test('the range follows a row that is outside of it', () => {
  const range = { from: 0, to: 1000 };
  assert.equal(follow(range, { start: 900, end: 5000 }, WHOLE), range);
  assert.deepEqual(follow(range, { start: 4000, end: 4010 }, WHOLE), { from: 4000, to: 5000 });
});

test('the scale has a few round ticks', () => {
  assert.deepEqual(ticks({ from: 0, to: 7_300_000 }).at, [0, 2_000_000, 4_000_000, 6_000_000]);
  assert.deepEqual(ticks({ from: 0, to: 0 }).at, [0]);
  for (let to = 1; to < 1e15; to *= 7) {
    const { at } = ticks({ from: 0, to });
    assert.ok(at.length <= 7 && at.at(-1) <= to, `${to}: ${at}`);
  }
});

test('ticks of a magnified range have different texts', () => {
  for (let length = 1e9; length >= 100; length /= 10) {
    const { at, digits } = ticks({ from: 1_234_567_890, to: 1_234_567_890 + length });
    const texts = at.map((tick) => duration(tick, digits));
    assert.ok(at.length > 2 && new Set(texts).size === at.length, `${length}: ${texts}`);
  }
});

test('the minimap has a path for each service and one for errors', () => {
  const rows = layOutTrace([
    span('root', null, 0, 10_000),
    span('a', 'root', 0, 5000, { service: 'stock' }),
    span('b', 'root', 5000, 5000, { status: 'error' }),
  ]);
  assert.deepEqual(
    [...minimap(rows, WHOLE)],
    [
      ['shop', 'M0 6.7H1000'],
      ['stock', 'M0 20H500'],
      [null, 'M500 33.3H1000'],
    ],
  );
});

test('the minimap of a large trace is small', () => {
  const many = Array.from({ length: 10_000 }, (_, index) => span(`s${index}`, null, index % 100, 1));
  const [path] = minimap(layOutTrace(many), { from: 0, to: 100 }).values();
  assert.ok(path.length < 60_000, `${path.length}`);
});
