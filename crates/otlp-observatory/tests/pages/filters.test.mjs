// Filters in the address, and addresses made of what others sent. The modules ask the browser for its address when they
// are loaded, so a stand-in is there before.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';

/** @type {any} */
let filters;
/** @type {any} */
let router;
/** @type {any} */
let tail;
/** @type {any} */
let live;

before(async () => {
  globalThis.location = /** @type {any} */ ({ pathname: '/', search: '', hash: '' });
  filters = await import('../../assets/filters.js');
  router = await import('../../assets/router.js');
  tail = await import('../../assets/tail.js');
  live = await import('../../assets/live.js');
});

test('filters are what the address says', () => {
  const query = '?service=a+b&status=&attribute=x%3D1&attribute=y&name=one&name=two';
  const found = filters.readFilters(query);
  assert.deepEqual(found, { service: 'a b', attribute: ['x=1', 'y'], name: 'two' });
  assert.equal(filters.filterAddress('/traces', found), '/traces?service=a+b&attribute=x%3D1&attribute=y&name=two');
});

test('an emptied filter leaves the address', () => {
  const one = filters.withFilter({ status: 'error', text: 'x' }, 'status', '');
  assert.deepEqual(one, { text: 'x' });
  assert.equal(filters.filterAddress('/traces', filters.withFilter(one, 'text', '')), '/traces');
  assert.deepEqual(filters.withFilter({ attribute: ['a'] }, 'attribute', []), {});
});

test('only ids make the address of a trace', () => {
  assert.ok(router.isId('0af7651916cd43dd8448eb211c80319c'));
  assert.ok(router.isId('b7ad6b7169203331'));
  for (const wrong of [
    '',
    'javascript:alert(1)',
    '0AF7651916CD43DD',
    '../../etc/passwd',
    'b7ad6b716920333',
    null,
    undefined,
    7,
  ]) {
    assert.ok(!router.isId(wrong), String(wrong));
  }
});

test('a part of an address that cannot be decoded is none', () => {
  assert.equal(router.decode('a%20b'), 'a b');
  assert.equal(router.decode('%'), null);
});

const records = (...sequences) => sequences.map((sequence) => ({ sequence }));

test('new records go before those that are shown, once', () => {
  assert.deepEqual(tail.join(records(3, 2), records(5, 4, 3), true), records(5, 4, 3, 2));
  assert.deepEqual(tail.join([], records(1), true), records(1));
});

test('records that leave a gap take the place of what is shown', () => {
  assert.deepEqual(tail.join(records(3, 2), records(900, 899), false), records(900, 899));
});

test('a tail keeps no more than it can show', () => {
  const shown = Array.from({ length: tail.MOST_LINES }, (_, index) => ({ sequence: tail.MOST_LINES - index }));
  const joined = tail.join(shown, records(tail.MOST_LINES + 1), true);
  assert.equal(joined.length, tail.MOST_LINES);
  assert.equal(joined[0].sequence, tail.MOST_LINES + 1);
});

test('the longer nobody answers, the less often is asked', () => {
  assert.equal(live.backOff(0, 1000), 1000);
  assert.equal(live.backOff(1, 1000), 2000);
  assert.equal(live.backOff(2, 1000), 4000);
  assert.equal(live.backOff(50, 1000), 15_000);
});
