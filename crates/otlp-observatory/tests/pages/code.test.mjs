// Source code in telemetry: stack traces and links to an editor.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EDITORS, editorAddress, isEditor, sourceOf } from '../../assets/editor.js';
import { raisedAt, sourceIn } from '../../assets/stack.js';

const [VSCODE] = EDITORS;

const STACKS = {
  python: [
    'Traceback (most recent call last):\n  File "/app/a.py", line 3, in <module>\n    f()\n' +
      '  File "/app/b.py", line 7, in f\n    g()\nE: x',
    { path: '/app/b.py', line: 7 },
  ],
  chainedPython: [
    'Traceback (most recent call last):\n  File "/app/a.py", line 3, in f\nKeyError\n\n' +
      'During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File "/app/c.py", line 9, in g\nValueError: x',
    { path: '/app/c.py', line: 9 },
  ],
  node: ['Error: x\n    at f (/app/x.js:10:5)\n    at file:///app/main.mjs:3:1', { path: '/app/x.js', line: 10 }],
  modules: ['Error: x\n    at file:///app/main.mjs:3:1', { path: '/app/main.mjs', line: 3 }],
  windows: ['Error: x\n    at f (C:\\app\\x.js:10:5)', { path: 'C:\\app\\x.js', line: 10 }],
  go: ['goroutine 1 [running]:\nmain.f()\n\t/app/main.go:42 +0x1d', { path: '/app/main.go', line: 42 }],
  rust: ['   0: shop::load\n             at ./src/load.rs:4:5', { path: './src/load.rs', line: 4 }],
  dotnet: ['E: x\n   at A.B() in C:\\my app\\X.cs:line 12', { path: 'C:\\my app\\X.cs', line: 12 }],
  ruby: ["/app/x.rb:42:in 'f': x (RuntimeError)\n\tfrom /app/y.rb:1:in 'g'", { path: '/app/x.rb', line: 42 }],
  php: ['Exception: x\n#0 /app/x.php(42): f()\n#1 {main}', { path: '/app/x.php', line: 42 }],
  java: ['java.lang.E: x\n\tat a.B.m(B.java:10)\n\tat a.C.n(C.java:3)', null],
  none: ['something else', null],
};

test('the frame that raised is found in each language', () => {
  for (const [language, [text, source]] of Object.entries(STACKS)) {
    const lines = text.split('\n');
    const at = raisedAt(lines);
    assert.deepEqual(at < 0 ? null : sourceIn(lines[at]), source, language);
  }
  assert.equal(raisedAt(STACKS.java[0].split('\n')), 1);
  assert.equal(raisedAt(['something else']), -1);
});

test('addresses in messages are no source', () => {
  for (const text of [
    'Error: GET http://localhost:8000/x failed',
    'at node:internal/process/task_queues:95:5',
    'a/b: 12',
  ]) {
    assert.equal(sourceIn(text), null, text);
  }
});

test('old and new attributes name the source', () => {
  assert.deepEqual(sourceOf({ 'code.file.path': '/a.py', 'code.line.number': 4 }), { path: '/a.py', line: 4 });
  assert.deepEqual(sourceOf({ 'code.filepath': 'src/a.rs', 'code.lineno': '7' }), { path: 'src/a.rs', line: 7 });
  assert.deepEqual(sourceOf({ 'code.file.path': '/a.py' }), { path: '/a.py', line: 1 });
  for (const attributes of [{}, undefined, { 'code.file.path': 5 }, { 'code.line.number': 4 }])
    assert.equal(sourceOf(attributes), null);
});

test('the editor opens absolute paths, and relative ones in the folder of the sources', () => {
  const open = (path, folder = '', editor = VSCODE) => editorAddress({ editor, folder }, { path, line: 4 });
  assert.equal(open('/srv/a b.py'), 'vscode://file/srv/a%20b.py:4');
  assert.equal(open('C:\\app\\x.cs'), 'vscode://file/C:/app/x.cs:4');
  assert.equal(open('src/a.rs'), null);
  assert.equal(open('./src/a.rs', '/home/me/'), 'vscode://file/home/me/src/a.rs:4');
  assert.equal(open('/a?b#c&d', '', EDITORS[3]), 'idea://open?file=/a%3Fb%23c%26d&line=4');
  assert.equal(open('/$&', '', 'x://{path}'), 'x://$%26');
});

test('an editor is no script', () => {
  for (const editor of EDITORS) assert.ok(isEditor(editor), editor);
  for (const editor of [
    'javascript:alert(1)',
    ' JavaScript:alert(1)',
    'data:text/html,x',
    'vbscript:x',
    'blob:x',
    '/x',
    '',
  ]) {
    assert.ok(!isEditor(editor), editor);
    assert.equal(editorAddress({ editor, folder: '' }, { path: '/a', line: 1 }), null);
  }
});
