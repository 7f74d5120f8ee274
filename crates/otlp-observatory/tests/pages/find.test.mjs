// Finding spans of a trace.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { find, named } from '../../assets/find.js';
import { layOutTrace, span } from './spans.mjs';

const rows = layOutTrace([
  span('0a', null, 0, 9, {
    name: 'GET /Cart',
    kind: 'server',
    attributes: { 'http.route': '/cart', 'http.response.status_code': 500 },
  }),
  span('0b', '0a', 1, 2, {
    service: 'db',
    name: 'SELECT cart',
    attributes: { 'db.query.text': 'SELECT *\nFROM cart' },
  }),
  span('0c', '0a', 3, 2, {
    name: 'SELECT cart_items',
    status: 'error',
    status_message: 'No such table',
    resource: { 'host.name': 'm1' },
  }),
  span('0d', '0a', 5, 2, { name: 'wait', events: [{ name: 'retry', attributes: { reason: { code: 42 } } }] }),
]);

const found = (query) =>
  find(rows, query)
    .map(({ key }) => key)
    .join(' ');

test('text is found in names, services, messages, attributes and events, ignoring case', () => {
  assert.equal(found('cart'), '0a 0b 0c');
  assert.equal(found('db'), '0b');
  assert.equal(found('no such TABLE'), '0c');
  assert.equal(found('"from cart"'), '0b');
  assert.equal(found('http.route'), '0a');
  assert.equal(found('code":42'), '0d');
  assert.equal(found('retry'), '0d');
  assert.equal(found('m1'), '0c');
  assert.equal(found('nothing'), '');
});

test('a comparison is about a field or an attribute', () => {
  assert.equal(found('name="SELECT cart"'), '0b');
  assert.equal(found('name~select'), '0b 0c');
  assert.equal(found('name=select'), '');
  assert.equal(found('status=error'), '0c');
  assert.equal(found('error=true'), '0c');
  assert.equal(found('status>=500'), '0a');
  assert.equal(found('kind = server'), '0a');
  assert.equal(found('span=0d'), '0d');
  assert.equal(found('event=retry'), '0d');
  assert.equal(found('dur>2ns'), '0a');
  assert.equal(found('dur<=0.002us'), '0b 0c 0d');
  assert.equal(found('dur=9ns'), '0a');
  assert.equal(found('dur>0'), '');
  assert.equal(found('http.response.status_code=500'), '0a');
  assert.equal(found('http.response.status_code<500'), '');
  assert.equal(found('host.name=m1'), '0c');
  assert.equal(found('host.name=*'), '0c');
  assert.equal(found('service!=shop'), '0b');
  assert.equal(found('host.name!=m2'), '0c');
  assert.equal(found('http.route=/'), '');
});

test('all names of an attribute are equal', () => {
  const spans = [
    span('old', null, 0, 1, { attributes: { 'db.statement': 'SELECT 1' } }),
    span('new', null, 0, 1, { attributes: { 'db.query.text': 'SELECT 1' } }),
  ];
  const aliases = [
    ['a', 'b'],
    ['db.query.text', 'db.statement'],
  ];
  for (const name of aliases[1]) assert.equal(find(layOutTrace(spans), `${name}~select`, aliases).length, 2, name);
  assert.equal(find(layOutTrace(spans), 'db.statement~select').length, 1);
});

test('terms are combined and negated', () => {
  assert.equal(found('cart status=error'), '0c');
  assert.equal(found('cart and !error=true'), '0a 0b');
  assert.equal(found('kind=server or event=retry'), '0a 0d');
  assert.equal(found('!name~select'), '0a 0d');
  assert.equal(found('! cart'), '0d');
});

test('an incomplete term is text', () => {
  assert.equal(found('select~'), '0b 0c');
  assert.equal(found('"select'), '0b 0c');
});

test('an empty search finds nothing', () => {
  for (const query of ['', '  ', '!', '=', 'or']) assert.equal(found(query), '', query);
});

test('the query of a name finds exactly this name', () => {
  const names = ['a "b" \\ c', "it's", 'SELECT', 'or'];
  const spans = names.map((name, index) => span(String(index), null, 0, 1, { name }));
  for (const [index, name] of names.entries()) {
    assert.deepEqual(
      find(layOutTrace(spans), named(name)).map(({ key }) => key),
      [String(index)],
      name,
    );
  }
});
