// Text of others, made fit to be seen.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clip, pieces, plain, textOf } from '../../assets/text.js';

test('what turns text about is shown by its name', () => {
  assert.deepEqual(pieces('a\u202etxt.exe'), [
    { text: 'a', unseen: false },
    { text: 'U+202E', unseen: true },
    { text: 'txt.exe', unseen: false },
  ]);
  assert.equal(plain('\u0000\u200b\u2066\ufeff'), '<U+0000><U+200B><U+2066><U+FEFF>');
});

test('line breaks, tabs and other languages stay as they are', () => {
  for (const text of ['', 'a\n\tb\r\n', 'שלום', 'مرحبا', '日本語 🎉', '<script>alert(1)</script>']) {
    assert.deepEqual(pieces(text), [{ text, unseen: false }]);
  }
});

test('text is not cut within a character', () => {
  assert.equal(clip('ab🎉cd', 3), 'ab');
  assert.equal(clip('ab🎉cd', 4), 'ab🎉');
  assert.equal(clip('abc', 3), 'abc');
});

test('values that are no text are JSON', () => {
  assert.equal(textOf('a'), 'a');
  assert.equal(textOf(1), '1');
  assert.equal(textOf(null), 'null');
  assert.equal(textOf(['a', { b: true }]), '["a",{"b":true}]');
  assert.equal(textOf(undefined), '');
});
