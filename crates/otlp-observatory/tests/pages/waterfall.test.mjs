// Rows of the waterfall.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as waterfall from '../../assets/waterfall.js';
import { START, layOutTrace as layOut, span } from './spans.mjs';

const TRACE = [
  span('root', null, 0, 100),
  span('a', 'root', 10, 40),
  span('aa', 'a', 20, 10),
  span('b', 'root', 60, 60),
  span('orphan', 'elsewhere', 50, 10),
];

/** A root with seven equal statements, the third of which failed, around another span. */
const REPEATED = [
  span('root', null, 0, 100),
  span('other', 'root', 1, 1),
  ...[1, 2, 3, 4, 5, 6, 7].map((n) =>
    span(`q${n}`, 'root', 10 * n, 5, { name: 'SELECT author', status: n === 3 ? 'error' : 'unset' }),
  ),
];

const keys = (rows) => rows.map(({ key }) => key);
const shown = (rows, view) => {
  const entries = waterfall.visible(rows, { toggled: new Set(), grouping: true, ...view });
  return entries.map(({ row, depth }) => `${'.'.repeat(depth)}${row.key}`);
};
const byKey = (rows, key) => rows.find((row) => row.key === key);

test('the depth is the number of ancestors', () => {
  assert.deepEqual(
    layOut(TRACE).map(({ depth, descendants }) => [depth, descendants]),
    [
      [0, 3],
      [1, 1],
      [2, 0],
      [1, 0],
      [0, 0],
    ],
  );
});

test('times are relative to the trace', () => {
  const [root, a] = layOut(TRACE);
  assert.deepEqual([root.start, root.end, root.reach], [0, 100, 120]);
  assert.deepEqual([a.start, a.end, a.reach], [10, 50, 50]);
});

test('spans with the same id are different rows', () => {
  const spans = [
    span('1', null, 0, 100),
    span('2', '1', 10, 10, { parent_index: 0 }),
    span('1', null, 5, 90, { service: 'stock' }),
    span('2', '1', 30, 10, { service: 'stock', parent_index: 2 }),
  ];
  const rows = waterfall.layOut(spans, START);
  assert.deepEqual(keys(rows), ['1', '2', '1-2', '2-2']);
  assert.deepEqual(
    rows.map(({ parent }) => parent?.key ?? null),
    [null, '1', null, '1-2'],
  );
});

test('descendants of a folded span are hidden', () => {
  const rows = layOut(TRACE);
  assert.deepEqual(shown(rows, { toggled: new Set(['a']) }), ['root', '.a', '.b', 'orphan']);
  assert.deepEqual(shown(rows, { toggled: new Set(['root']) }), ['root', 'orphan']);
  assert.deepEqual(shown(rows, {}), ['root', '.a', '..aa', '.b', 'orphan']);
});

test('only the first levels are shown', () => {
  const rows = layOut(TRACE);
  assert.equal(waterfall.levelsOf(rows), 3);
  assert.deepEqual(shown(rows, { toggled: waterfall.foldedBelow(rows, 1) }), ['root', 'orphan']);
  assert.deepEqual(shown(rows, { toggled: waterfall.foldedBelow(rows, 2) }), ['root', '.a', '.b', 'orphan']);
  assert.deepEqual([...waterfall.foldedBelow(rows, 3)], []);
});

test('equal siblings are one row until it is opened', () => {
  const rows = layOut(REPEATED);
  assert.deepEqual(shown(rows, {}), ['root', '.other', '.group-q1']);
  assert.deepEqual(shown(rows, { grouping: false }).length, 9);
  assert.deepEqual(shown(rows, { toggled: new Set(['group-q1']) }).slice(2, 5), ['.group-q1', '..q1', '..q2']);
  const { group } = byKey(rows, 'q1');
  assert.deepEqual([group.start, group.end, group.failures, group.members.length], [10, 75, 1, 7]);
});

test('four equal siblings, or siblings of different kinds, are not a group', () => {
  assert.equal(shown(layOut(REPEATED.slice(0, 6)), {}).length, 6);
  assert.equal(shown(layOut(REPEATED.slice(0, 7)), {}).length, 3);
  const kinds = REPEATED.map((one, index) => ({ ...one, kind: index % 2 ? 'client' : 'internal' }));
  assert.equal(shown(layOut(kinds), {}).length, 9);
});

test('a filter shows matches below their ancestors', () => {
  const rows = layOut(TRACE);
  const filtered = waterfall.withAncestors([byKey(rows, 'aa')]);
  assert.deepEqual(shown(rows, { shown: filtered, toggled: new Set(['root']) }), ['root', '.a', '..aa']);
});

test('a hidden span is revealed', () => {
  const rows = layOut(REPEATED);
  const toggled = waterfall.reveal(byKey(rows, 'q4'), new Set(['root']));
  assert.deepEqual([...toggled], ['group-q1']);
  assert.ok(shown(rows, { toggled }).includes('..q4'));
});

test('ancestors are all spans above a span', () => {
  const rows = layOut(TRACE);
  assert.deepEqual(keys(waterfall.ancestors(byKey(rows, 'aa'))), ['a', 'root']);
  assert.deepEqual(waterfall.ancestors(byKey(rows, 'orphan')), []);
});

test('failures are counted in ancestors and visited in order', () => {
  const rows = layOut([...REPEATED, span('late', 'root', 90, 1, { status: 'error' })]);
  assert.equal(rows[0].failures, 2);
  const failed = rows.filter(waterfall.isFailed);
  const from = (key, step) => waterfall.next(failed, key && byKey(rows, key), step).key;
  assert.equal(from(null, 1), 'q3');
  assert.equal(from('q3', 1), 'late');
  assert.equal(from('late', 1), 'q3');
  assert.equal(from('q3', -1), 'late');
  assert.equal(from('late', -1), 'q3');
  assert.equal(waterfall.next([], rows[0], 1), undefined);
  const { group } = byKey(rows, 'q1');
  assert.equal(waterfall.next(group.members, group, 1).key, 'q1');
});

test('a chain of ten thousand spans has rows', () => {
  const chain = Array.from({ length: 10_000 }, (_, index) =>
    span(`s${index}`, index ? `s${index - 1}` : null, index, 10),
  );
  const rows = layOut(chain);
  assert.equal(rows.at(-1).depth, 9_999);
  assert.equal(rows[0].descendants, 9_999);
  assert.equal(shown(rows, {}).length, 10_000);
});
