// Links to spans, and names of services with several instances.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backLinksOf } from '../../assets/links.js';
import { instanceNames } from '../../assets/services.js';
import { logsByRow } from '../../assets/waterfall.js';
import { layOutTrace, span } from './spans.mjs';

test('a span has the links of its own trace and of others', () => {
  const links = [
    { trace_id: 't', span_id: 'a' },
    { trace_id: 'other', span_id: 'a' },
  ];
  const rows = layOutTrace([span('a', null, 0, 9), span('b', 'a', 1, 2, { links })]);
  const linkedFrom = [{ to_span_id: 'b', trace_id: 'other', span_id: 'c' }];
  assert.deepEqual(
    [...backLinksOf(rows, 't', linkedFrom)],
    [
      ['a', [{ trace_id: 't', span_id: 'b', name: 'b', service: 'shop' }]],
      ['b', [{ trace_id: 'other', span_id: 'c' }]],
    ],
  );
  assert.equal(backLinksOf(rows, 'elsewhere', []).size, 0);
});

test('instances of a service are told apart if there are several', () => {
  const of = (service, id) => ({ service, resource: id ? { 'service.instance.id': id } : {} });
  const [one, two, single, none] = [
    of('a', '6f1c2a9b-0000-4000-8000-000000000001'),
    of('a', 'host-2'),
    of('b', 'host-1'),
    of('c'),
  ];
  const name = instanceNames([one, one, two, single, none]);
  assert.deepEqual([one, two, single, none].map(name), ['6f1c2a9b', 'host-2', null, null]);
});

test('a log record belongs to the span of its service', () => {
  const rows = layOutTrace([span('1', null, 0, 9, { service: 'a' }), span('1', null, 1, 9, { service: 'b' })]);
  const log = (service, id) => ({ service, span_id: id });
  const found = logsByRow(rows, [log('b', '1'), log('c', '1'), log('a', null)]);
  assert.deepEqual(
    [...found].map(([row, logs]) => [row.key, logs.length]),
    [
      ['1-2', 1],
      ['1', 1],
    ],
  );
});
