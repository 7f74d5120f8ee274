// Stack traces of several languages: the place in the source that a line names, and the line of the frame that raised.
// Pure functions.

/** @typedef {{path: string, line: number}} Source */

const PYTHON = /^\s*File "(?<path>[^"]+)", line (?<line>\d+)/;
const DOTNET = / in (?<path>.+):line (?<line>\d+)/;
// Node.js, Go, Rust, Ruby, PHP: a path with a folder, then the line after a colon or in parentheses.
const OTHER = /(?:^|[\s(])(?:file:\/\/)?(?<path>(?:[A-Za-z]:)?[^\s:()"]*[\\/][^\s:()"]+)[:(](?<line>\d+)/;

/** Returns the place in the source that a line of a stack trace names. @param {string} text @returns {Source | null} */
export function sourceIn(text) {
  const { path, line } = (PYTHON.exec(text) ?? DOTNET.exec(text) ?? OTHER.exec(text))?.groups ?? {};
  return path ? { path, line: Number(line) } : null;
}

/**
 * Returns the index of the line of the frame that raised; -1 if there is none. Python puts it last, other languages first.
 *
 * @param {string[]} lines
 */
export function raisedAt(lines) {
  if (lines.some((line) => line.startsWith('Traceback (most recent call last)'))) {
    return lines.findLastIndex((line) => PYTHON.test(line));
  }
  return lines.findIndex((line) => /^\s+at /.test(line) || sourceIn(line) !== null);
}
