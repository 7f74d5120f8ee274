// Filters in addresses, addresses from untrusted values, the live log, and polling. The modules read the address of the
// browser when they are loaded, so a stub is set first.
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

test('filters are read from the address', () => {
  const query = '?service=a+b&status=&attribute=x%3D1&attribute=y&name=one&name=two';
  const found = filters.readFilters(query);
  assert.deepEqual(found, { service: 'a b', attribute: ['x=1', 'y'], name: 'two' });
  assert.equal(filters.filterAddress('/traces', found), '/traces?service=a+b&attribute=x%3D1&attribute=y&name=two');
});

test('an empty filter is removed from the address', () => {
  const one = filters.withFilter({ status: 'error', text: 'x' }, 'status', '');
  assert.deepEqual(one, { text: 'x' });
  assert.equal(filters.filterAddress('/traces', filters.withFilter(one, 'text', '')), '/traces');
  assert.deepEqual(filters.withFilter({ attribute: ['a'] }, 'attribute', []), {});
});

test('only valid ids form a trace address', () => {
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

test('an undecodable segment of an address is null', () => {
  assert.equal(router.decode('a%20b'), 'a b');
  assert.equal(router.decode('%'), null);
});

/** Records whose times are in the order of their arrival. */
const records = (...sequences) =>
  sequences.map((sequence) => ({ sequence, time_unix_nano: String(1_800_000_000 + sequence) }));

test('new records are added once, before the shown ones', () => {
  assert.deepEqual(tail.join(records(3, 2), records(5, 4, 3), true), records(5, 4, 3, 2));
  assert.deepEqual(tail.join([], records(1), true), records(1));
});

test('records that arrive late are added at their time', () => {
  const late = { sequence: 9, time_unix_nano: '999' };
  const middle = { sequence: 10, time_unix_nano: '1800000003' };
  const joined = tail.join(records(5, 3, 2), [middle, late], true);
  assert.deepEqual(
    joined.map((log) => log.sequence),
    [5, 10, 3, 2, 9],
  );
});

test('records after a gap replace the shown ones', () => {
  assert.deepEqual(tail.join(records(3, 2), records(900, 899), false), records(900, 899));
});

test('the live log is limited in length', () => {
  const shown = Array.from({ length: tail.MAX_LINES }, (_, index) => records(tail.MAX_LINES - index)[0]);
  const joined = tail.join(shown, records(tail.MAX_LINES + 1), true);
  assert.equal(joined.length, tail.MAX_LINES);
  assert.equal(joined[0].sequence, tail.MAX_LINES + 1);
});

test('the polling interval grows with failures', () => {
  assert.equal(live.backOff(0, 1000), 1000);
  assert.equal(live.backOff(1, 1000), 2000);
  assert.equal(live.backOff(2, 1000), 4000);
  assert.equal(live.backOff(50, 1000), 15_000);
});
