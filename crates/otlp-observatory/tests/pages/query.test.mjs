// The query line: what is completed at the caret, quoting, pasted trace ids, sorted columns and saved views.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';

/** @type {any} */
let query;
/** @type {any} */
let views;
/** @type {any} */
let order;

before(async () => {
  globalThis.location = /** @type {any} */ ({ pathname: '/', search: '', hash: '' });
  query = await import('../../assets/query.js');
  views = await import('../../assets/views.js');
  order = await import('../../assets/sort.js');
});

/** Returns the context at the caret, which `|` marks. @param {string} text */
function at(text) {
  const caret = text.indexOf('|');
  const { key, from, to, typed } = query.contextAt(text.replace('|', ''), caret);
  return [key, text.replace('|', '').slice(from, to), typed];
}

test('keys and values are completed at the caret', () => {
  for (const [text, expected] of [
    ['|', [null, '', '']],
    ['ser|', [null, 'ser', 'ser']],
    ['se|rvice', [null, 'service', 'se']],
    ['service=|', ['service', '', '']],
    ['service=a|', ['service', 'a', 'a']],
    ['service=a |', [null, '', '']],
    ['service=a na|', [null, 'na', 'na']],
    ['service=a !na|', [null, 'na', 'na']],
    ['!(na|', [null, 'na', 'na']],
    ['service = a|', ['service', 'a', 'a']],
    ['service=|a name~b', ['service', 'a', '']],
    ['a=b ser|vice=c', [null, 'service', 'ser']],
    ['status>=5| x', ['status', '5', '5']],
    ['name!~he|', ['name', 'he', 'he']],
    ['name="GET /a| b" x', ['name', '"GET /a b"', 'GET /a']],
    ['"a=b"=c|', ['a=b', 'c', 'c']],
    ['(service=a|)', ['service', 'a', 'a']],
    ['(service=a) |', [null, '', '']],
    ['(service=|)', ['service', '', '']],
    ['(=|', ['', '', '']],
    ['=) <|', ['', '', '']],
  ]) {
    assert.deepEqual(at(text), expected, text);
  }
});

test('every caret of every text has a context', () => {
  const letters = ['a', ' ', '=', '!', '~', '<', '(', ')', '"', '\\'];
  for (let number = 0; number < 10_000; number += 1) {
    const text = [...String(number).padStart(4, '0')].map((digit) => letters[Number(digit)]).join('');
    for (let caret = 0; caret <= text.length; caret += 1) {
      const { from, to } = query.contextAt(text, caret);
      assert.ok(from <= caret && caret <= to && to <= text.length, JSON.stringify([text, caret, from, to]));
    }
  }
});

const KNOWN = {
  fields: ['service', 'dur'],
  keys: ['http.route', 'my service', 'dur'],
  values: ['shop', 'a b', 'x*', 'say "a"'],
};

test('completions begin with the typed text, or contain it', () => {
  const context = (key, typed) => ({ key, from: 0, to: typed.length, typed });
  const texts = (found) => query.optionsFor(found, KNOWN).map((option) => option.text);
  assert.deepEqual(texts(context(null, '')), ['service=', 'dur>', 'http.route=', '"my service"=', '"dur"=']);
  assert.deepEqual(texts(context(null, 'SERV')), ['service=', '"my service"=']);
  assert.deepEqual(texts(context('service', '')), ['shop ', '"a b" ', '"x*" ', '"say \\"a\\"" ']);
  assert.deepEqual(texts(context('service', 'shop')), []);
});

test('a trace id or a traceparent is the address of a trace', () => {
  const id = '0af7651916cd43dd8448eb211c80319c';
  for (const text of [id, ` ${id}\n`, id.toUpperCase()]) assert.equal(query.traceOf(text), `/traces/${id}`);
  assert.equal(query.traceOf(`00-${id}-b7ad6b7169203331-01`), `/traces/${id}#b7ad6b7169203331`);
  for (const text of ['', 'x', `${id}0`, `a ${id}`, '0'.repeat(32), `00-${id}-b7ad6b7169203331`])
    assert.equal(query.traceOf(text), null, text);
});

test('a click on a column sorts by it, then the other way, then not', () => {
  assert.equal(order.nextSort('duration', ''), '-duration');
  assert.equal(order.nextSort('duration', '-duration'), 'duration');
  assert.equal(order.nextSort('duration', 'duration'), '');
  assert.equal(order.nextSort('duration', '-spans'), '-duration');
});

test('rows without a value come last in both directions', () => {
  const rows = [{ n: 2 }, { n: null }, { n: 10 }, { n: 1 }];
  const by = (sort) => order.sorted(rows, sort, { n: (row) => row.n }).map((row) => row.n);
  assert.deepEqual(by('n'), [1, 2, 10, null]);
  assert.deepEqual(by('-n'), [10, 2, 1, null]);
  assert.deepEqual(by(''), [2, null, 10, 1]);
  assert.deepEqual(by('-other'), [2, null, 10, 1]);
});

test('saved views are local addresses with unique names', () => {
  const one = { name: 'errors', address: '/traces?status=error' };
  assert.deepEqual(views.readViews(JSON.stringify([one])), [one]);
  for (const wrong of [null, 'x', '{}', '[null]', '[{"name":"a"}]', '[{"name":"a","address":"//evil.example"}]'])
    assert.deepEqual(views.readViews(wrong), [], String(wrong));
  const next = { ...one, address: '/logs' };
  assert.deepEqual(views.withView([one], next), [next]);
  assert.deepEqual(views.withView([one], { name: 'a', address: '/' })[0].name, 'a');
});
