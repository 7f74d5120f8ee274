// Formatting of numbers, durations and timestamps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ago,
  between,
  bytes,
  clock,
  clockOrDate,
  dateTime,
  duration,
  measured,
  offset,
  percent,
  rate,
  short,
} from '../../assets/format.js';

test('durations have a suitable unit', () => {
  const cases = [
    [0, '0'],
    [850, '850 ns'],
    [1_240, '1.24 µs'],
    [5_300_000, '5.3 ms'],
    [999_900_000, '1 s'],
    [12_345_000_000, '12.3 s'],
    [125_000_000_000, '2 min 5 s'],
    [59_700_000_000, '59.7 s'],
    [119_700_000_000, '2 min 0 s'],
    [3_599_700_000_000, '1 h 0 min'],
    [5_400_000_000_000, '1 h 30 min'],
    [-259_199_000_000_000, '-72 h 0 min'],
    [-5_300_000, '-5.3 ms'],
    [null, '–'],
    [undefined, '–'],
  ];
  for (const [ns, text] of cases) assert.equal(duration(ns), text);
});

test('an offset has a sign', () => {
  assert.equal(offset(5_300_000), '+5.3 ms');
  assert.equal(offset(-5_300_000), '-5.3 ms');
});

test('a time that is not today has a date', () => {
  const time = '1795342907000000000';
  assert.equal(clockOrDate(time, 1_795_342_907_500), clock(time));
  assert.equal(clockOrDate(time, 1_795_342_907_500 + 86_400_000), dateTime(time));
});

test('rates below one in ten seconds are per minute', () => {
  assert.equal(rate(0), '0/s');
  assert.equal(rate(4), '4/s');
  assert.equal(rate(0.4), '0.4/s');
  assert.equal(rate(0.05), '3/min');
  assert.equal(rate(1234.5), '1,235/s');
});

test('numbers keep their significant digits', () => {
  assert.equal(short(0), '0');
  assert.equal(short(1.23456), '1.23');
  assert.equal(short(123456.7), '123,457');
  assert.equal(short(1e20), '1.00e+20');
  assert.equal(short(0.00001), '1.00e-5');
});

test('sizes have binary prefixes', () => {
  assert.equal(bytes(0), '0 B');
  assert.equal(bytes(1024), '1 KiB');
  assert.equal(bytes(268_435_456), '256 MiB');
});

test('a small share is not zero', () => {
  assert.equal(percent(0, 10), '0 %');
  assert.equal(percent(1, 100_000), '<0.1 %');
  assert.equal(percent(1, 3), '33 %');
  assert.equal(percent(0, 0), '–');
});

test('timestamps are subtracted without loss of nanoseconds', () => {
  assert.equal(between('1795342907000000001', '1795342907000000004'), 3);
  assert.equal(between('1795342907000000004', '1795342907000000001'), -3);
});

test('an age is in its largest unit', () => {
  const at = '1795342907000000000';
  const now = 1_795_342_907_000;
  assert.equal(ago(at, now + 2_400), '2 s ago');
  assert.equal(ago(at, now + 125_000), '2 min ago');
  assert.equal(ago(at, now + 7_300_000), '2 h ago');
  assert.equal(ago(at, now - 5_000), '0 s ago');
});

test("values are in their instrument's unit", () => {
  assert.equal(measured(0.0041, 's'), '4.1 ms');
  assert.equal(measured(12, 'ms'), '12 ms');
  assert.equal(measured(2048, 'By'), '2 KiB');
  assert.equal(measured(3, '{request}'), '3');
  assert.equal(measured(0.5, '1'), '0.5');
  assert.equal(measured(7, 'Cel'), '7 Cel');
  assert.equal(measured(null, 's'), '–');
  // Units are untrusted text.
  assert.equal(measured(7, 'constructor'), '7 constructor');
});
