// Rows of the waterfall.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ancestors, layOut, ticks, visible } from '../../assets/waterfall.js';

const START = 1_795_342_907_000_000_000n;

const span = (id, parent, from, duration) => ({
  span_id: id,
  parent_span_id: parent,
  start_unix_nano: String(START + BigInt(from)),
  duration_ns: duration,
});

const TRACE = [
  span('root', null, 0, 100),
  span('a', 'root', 10, 40),
  span('aa', 'a', 20, 10),
  span('b', 'root', 60, 60),
  span('orphan', 'elsewhere', 50, 10),
];

const rows = () => layOut(TRACE, String(START), 100);
const ids = (some) => some.map((row) => row.span.span_id);

test('the depth is the number of ancestors', () => {
  assert.deepEqual(
    rows().map(({ depth, descendants }) => [depth, descendants]),
    [
      [0, 3],
      [1, 1],
      [2, 0],
      [1, 0],
      [0, 0],
    ],
  );
});

test('bars are within the trace', () => {
  const [root, a, , b] = rows();
  assert.deepEqual([root.left, root.width], [0, 1]);
  assert.deepEqual([a.left, a.width], [0.1, 0.4]);
  assert.deepEqual([b.left, b.width], [0.6, 0.6]);
  const [early] = layOut([span('early', null, -500, 10_000)], String(START), 100);
  assert.deepEqual([early.left, early.width], [0, 1]);
});

test('descendants of a folded span are hidden', () => {
  assert.deepEqual(ids(visible(rows(), new Set(['a']))), ['root', 'a', 'b', 'orphan']);
  assert.deepEqual(ids(visible(rows(), new Set(['root']))), ['root', 'orphan']);
  assert.deepEqual(ids(visible(rows(), new Set())), ids(rows()));
});

test('ancestors are all spans above a span', () => {
  assert.deepEqual(ancestors(rows(), 'aa'), ['a', 'root']);
  assert.deepEqual(ancestors(rows(), 'orphan'), []);
  assert.deepEqual(ancestors(rows(), 'unknown'), []);
});

test('cycles of parents terminate', () => {
  const circle = layOut([span('x', 'y', 0, 1), span('y', 'x', 0, 1), span('z', 'z', 0, 1)], String(START), 1);
  assert.equal(circle.length, 3);
  assert.deepEqual(ancestors(circle, 'x'), ['y', 'x']);
  assert.ok(visible(circle, new Set(['x', 'z'])).length > 0);
});

test('the scale has a few round ticks', () => {
  assert.deepEqual(ticks(7_300_000), [0, 2_000_000, 4_000_000, 6_000_000]);
  assert.deepEqual(ticks(0), [0]);
  for (let duration = 1; duration < 1e15; duration *= 7) {
    const lines = ticks(duration);
    assert.ok(lines.length <= 7 && lines.at(-1) <= duration, `${duration}: ${lines}`);
  }
});

test('a chain of ten thousand spans has rows', () => {
  const chain = Array.from({ length: 10_000 }, (_, index) =>
    span(`s${index}`, index ? `s${index - 1}` : null, index, 10),
  );
  const laid = layOut(chain, String(START), 10_010);
  assert.equal(laid.at(-1).depth, 9_999);
  assert.equal(laid[0].descendants, 9_999);
});
