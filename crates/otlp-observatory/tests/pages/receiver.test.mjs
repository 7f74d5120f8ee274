// URLs of the receivers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { receiver } from '../../assets/format.js';

test('a receiver has the name under which services reach it', () => {
  for (const [url, page, shown] of [
    ['http://127.0.0.1:4318', 'localhost', 'http://localhost:4318'],
    ['http://127.0.0.1:24318', '127.0.0.1', 'http://localhost:24318'],
    ['http://0.0.0.0:4317', 'devbox', 'http://devbox:4317'],
    ['http://[::]:4317', '192.0.2.7', 'http://192.0.2.7:4317'],
    ['http://[::1]:80', 'localhost', 'http://[::1]'],
    ['http://192.0.2.1:4318', 'localhost', 'http://192.0.2.1:4318'],
  ]) {
    assert.equal(receiver(url, page), shown);
  }
});
