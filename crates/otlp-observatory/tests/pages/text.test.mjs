// Display of untrusted text.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addresses, clip, indentedJson, pieces, plain, textOf } from '../../assets/text.js';

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

test('only http and https addresses are links, without the punctuation around them', () => {
  const urls = (text) => addresses(text).flatMap(({ url }) => url ?? []);
  assert.deepEqual(urls('see https://example.com/a?b=c#d, or (http://[::1]:80/x).'), [
    'https://example.com/a?b=c#d',
    'http://[::1]:80/x',
  ]);
  assert.deepEqual(urls('https://example.com/a_(b) and https://example.com/).'), [
    'https://example.com/a_(b)',
    'https://example.com/',
  ]);
  for (const text of ['javascript:alert(1)', 'ftp://x', 'http://[x', 'xhttps://x', 'https://', 'vscode://file/x', '//example.com']) {
    assert.deepEqual(urls(text), [], text);
  }
  for (const text of ['', 'a https://x.example b', 'https://x.example/<script>', 'https://x.example/\u202egnp']) {
    const parts = addresses(text);
    assert.equal(parts.map((part) => part.text).join(''), text);
    assert.ok(
      parts.every(({ url }) => !url || /^https:\/\/x\.example\/?$/.test(url)),
      text,
    );
  }
});

test('JSON has a line for each value, and exact numbers', () => {
  assert.equal(
    indentedJson('{"a":[1,{"b":"x, \\"{y"}],"n":9007199254740993}'),
    ['{', '  "a": [', '    1,', '    {', '      "b": "x, \\"{y"', '    }', '  ],', '  "n": 9007199254740993', '}'].join(
      '\n',
    ),
  );
  assert.equal(indentedJson(' [ ] '), '[]');
  assert.equal(indentedJson('{"a": { } , "b" : null}'), '{\n  "a": {},\n  "b": null\n}');
  for (const text of ['', 'x', '1', '"a"', '{', '[1,]', '{a:1}', '[INFO] started'])
    assert.equal(indentedJson(text), null, text);
});
