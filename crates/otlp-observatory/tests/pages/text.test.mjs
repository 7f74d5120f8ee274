// Display of untrusted text.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clip, pieces, plain, textOf } from '../../assets/text.js';

test('direction marks are shown by their code point', () => {
  assert.deepEqual(pieces('a\u202etxt.exe'), [
    { text: 'a', invisible: false },
    { text: 'U+202E', invisible: true },
    { text: 'txt.exe', invisible: false },
  ]);
  assert.equal(plain('\u0000\u200b\u2066\ufeff'), '<U+0000><U+200B><U+2066><U+FEFF>');
});

test('line breaks, tabs and other scripts are unchanged', () => {
  for (const text of ['', 'a\n\tb\r\n', 'שלום', 'مرحبا', '日本語 🎉', '<script>alert(1)</script>']) {
    assert.deepEqual(pieces(text), [{ text, invisible: false }]);
  }
});

test('text is not truncated within a character', () => {
  assert.equal(clip('ab🎉cd', 3), 'ab');
  assert.equal(clip('ab🎉cd', 4), 'ab🎉');
  assert.equal(clip('abc', 3), 'abc');
});

test('other values are formatted as JSON', () => {
  assert.equal(textOf('a'), 'a');
  assert.equal(textOf(1), '1');
  assert.equal(textOf(null), 'null');
  assert.equal(textOf(['a', { b: true }]), '["a",{"b":true}]');
  assert.equal(textOf(undefined), '');
});
