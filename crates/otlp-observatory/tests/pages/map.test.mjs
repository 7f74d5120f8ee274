// The part of the service map that is drawn.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawn, filtersOf } from '../../assets/map.js';

const node = (id) => ({ id, name: id.split(':')[1], kind: id.split(':')[0] });
const edge = (from, to, calls) => ({ from, to, calls, rate: calls / 10 });
const map = {
  nodes: ['service:a', 'service:b', 'database:x', 'external:clients'].map(node),
  edges: [
    edge('external:clients', 'service:a', 90),
    edge('service:a', 'database:x', 50),
    edge('service:a', 'service:b', 2),
  ],
  left_out: { edges: 0, calls: 0 },
};

test('a small map is drawn as a whole', () => {
  assert.deepEqual(drawn(map, 3), { nodes: map.nodes, edges: map.edges, total: 3 });
});

test('calls between services are drawn first, and those of clients are folded', () => {
  const { nodes, edges, total } = drawn({ ...map, left_out: { edges: 7, calls: 9 } }, 1);
  assert.equal(total, 10);
  assert.deepEqual(edges, [map.edges[2]]);
  assert.deepEqual(nodes, [{ ...map.nodes[0], detail: 'clients 9/s' }, map.nodes[1]]);
  assert.deepEqual(drawn(map, 2).edges, [map.edges[2], map.edges[1]]);
});

test('nodes link to their traces', () => {
  assert.deepEqual(filtersOf(map.nodes[0]), { service: 'a' });
  const attributes = { 'db.namespace': 'x', 'db.system.name': 'sqlite' };
  assert.deepEqual(filtersOf({ kind: 'database', name: 'x', attributes }), {
    attribute: ['db.namespace=x', 'db.system.name=sqlite'],
  });
  assert.equal(filtersOf({ kind: 'client', name: 'clients', attributes: {} }), null);
});
