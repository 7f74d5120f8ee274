// Rows of the waterfall: the tree of spans, groups of equal siblings, and the rows that are not folded. Pure functions;
// components/waterfall.js renders them.
import { between } from './format.js';

/** Minimum number of equal siblings that are shown as one row. */
export const MIN_GROUP = 5;

/**
 * @typedef {object} Row a span, or a group of equal siblings
 * @property {string} key the span's id, with a suffix if an earlier span has the same id
 * @property {any} span the first span of a group
 * @property {number} index in tree order
 * @property {Row | null} parent
 * @property {Row[]} children
 * @property {Row[] | null} members the spans of a group; null for a span
 * @property {Row | null} group that the span belongs to
 * @property {number} depth
 * @property {number} descendants number of spans below it
 * @property {number} failures number of failed spans below it
 * @property {number} start nanoseconds since the start of the trace
 * @property {number} end
 * @property {number} reach latest end of the span and its descendants
 */

export const isFailed = (/** @type {Row} */ { span, members }) => !members && span.status === 'error';

/**
 * Returns the rows of spans, which are in tree order: each after its parent.
 *
 * @param {any[]} spans
 * @param {string} start of the trace
 * @returns {Row[]}
 */
export function layOut(spans, start) {
  /** @type {Map<string, number>} */
  const occurrences = new Map();
  /** @type {Row[]} */
  const rows = [];
  for (const span of spans) {
    const from = between(start, span.start_unix_nano);
    const parent = rows[span.parent_index] ?? null;
    const occurrence = (occurrences.get(span.span_id) ?? 0) + 1;
    occurrences.set(span.span_id, occurrence);
    /** @type {Row} */
    const row = {
      key: occurrence > 1 ? `${span.span_id}-${occurrence}` : span.span_id,
      span,
      index: rows.length,
      parent,
      children: [],
      members: null,
      group: null,
      depth: parent ? parent.depth + 1 : 0,
      descendants: 0,
      failures: 0,
      start: from,
      end: from + span.duration_ns,
      reach: from + span.duration_ns,
    };
    parent?.children.push(row);
    rows.push(row);
  }
  for (const row of rows.toReversed()) {
    const { parent } = row;
    if (!parent) continue;
    parent.descendants += row.descendants + 1;
    parent.failures += row.failures + (isFailed(row) ? 1 : 0);
    parent.reach = Math.max(parent.reach, row.reach);
  }
  formGroups(rootsOf(rows));
  for (const row of rows) formGroups(row.children);
  return rows;
}

/** @param {Row[]} rows */
const rootsOf = (rows) => rows.filter((row) => !row.parent);

/** Groups siblings with the same service, name and kind. @param {Row[]} siblings */
function formGroups(siblings) {
  if (siblings.length < MIN_GROUP) return;
  /** @type {Map<string, Row[]>} */
  const equal = new Map();
  for (const row of siblings) {
    const key = JSON.stringify([row.span.service, row.span.name, row.span.kind]);
    equal.set(key, equal.get(key) ?? []);
    equal.get(key)?.push(row);
  }
  for (const members of equal.values()) {
    if (members.length < MIN_GROUP) continue;
    const [first] = members;
    /** @type {Row} */
    const group = {
      ...first,
      key: `group-${first.key}`,
      children: [],
      members,
      descendants: members.length,
      failures: 0,
    };
    for (const row of members) {
      row.group = group;
      group.start = Math.min(group.start, row.start);
      group.end = Math.max(group.end, row.end);
      group.failures += row.failures + (isFailed(row) ? 1 : 0);
    }
  }
}

/**
 * Returns whether a row shows what is below it: spans do until they are folded, groups do after they are opened.
 *
 * @param {Row} row
 * @param {ReadonlySet<string>} toggled
 */
export const isOpen = (row, toggled) => Boolean(row.members) === toggled.has(row.key);

/**
 * Returns the rows to show, with their indentation. With `shown`, these are exactly its rows, without groups.
 *
 * @param {Row[]} rows
 * @param {{toggled: ReadonlySet<string>, grouping: boolean, shown?: ReadonlySet<Row> | null}} view
 * @returns {{row: Row, depth: number}[]}
 */
export function visible(rows, { toggled, grouping, shown }) {
  if (shown) return rows.filter((row) => shown.has(row)).map((row) => ({ row, depth: row.depth }));
  /** @type {{row: Row, depth: number}[]} */
  const found = [];
  /** @type {{row: Row, depth: number}[]} */
  const open = [];
  const add = (/** @type {Row[]} */ siblings, /** @type {number} */ depth) => {
    for (const row of siblings.toReversed()) {
      if (!grouping || !row.group) open.push({ row, depth });
      else if (row.group.members?.[0] === row) open.push({ row: row.group, depth });
    }
  };
  add(rootsOf(rows), 0);
  for (let entry = open.pop(); entry; entry = open.pop()) {
    found.push(entry);
    const { row, depth } = entry;
    if (!isOpen(row, toggled)) continue;
    for (const member of row.members?.toReversed() ?? []) open.push({ row: member, depth: depth + 1 });
    add(row.children, depth + 1);
  }
  return found;
}

/** Returns the ancestors of a row, its parent first. @param {Row} row */
export function ancestors(row) {
  const found = [];
  for (let at = row.parent; at; at = at.parent) found.push(at);
  return found;
}

/** Returns rows together with all of their ancestors. @param {Row[]} rows */
export function withAncestors(rows) {
  const found = new Set(rows);
  for (const row of rows) {
    for (let at = row.parent; at && !found.has(at); at = at.parent) found.add(at);
  }
  return found;
}

/** Returns `toggled` with everything open that hides the row. @param {Row} row @param {ReadonlySet<string>} toggled */
export function reveal(row, toggled) {
  const next = new Set(toggled);
  for (const at of [row, ...ancestors(row)]) {
    if (at !== row) next.delete(at.key);
    if (at.group) next.add(at.group.key);
  }
  return next;
}

/** Returns the folded spans if only the first `levels` levels are shown. @param {Row[]} rows @param {number} levels */
export const foldedBelow = (rows, levels) =>
  new Set(rows.filter(({ depth, children }) => depth >= levels - 1 && children.length > 0).map(({ key }) => key));

/** Returns the number of levels of the tree. @param {Row[]} rows */
export const levelsOf = (rows) => rows.reduce((most, { depth }) => Math.max(most, depth + 1), 0);

/**
 * Returns the row of `candidates`, which are in tree order, that follows the selected row; the first follows the last.
 *
 * @param {Row[]} candidates
 * @param {Row | null} selected
 * @param {1 | -1} step
 */
export function next(candidates, selected, step) {
  const from = selected?.index ?? -1;
  // A group has the index of its first member, which comes after the group.
  const isAfter = ({ index }) => index > from || (selected?.members && index === from);
  if (step > 0) return candidates.find(isAfter) ?? candidates[0];
  return candidates.findLast(({ index }) => index < from) ?? candidates.at(-1);
}

/**
 * Returns the log records of each row. If several spans have the record's span id, it belongs to the one of its service.
 *
 * @param {Row[]} rows
 * @param {any[]} logs
 */
export function logsByRow(rows, logs) {
  /** @type {Map<Row, any[]>} */
  const found = new Map();
  const reversed = rows.toReversed();
  const byId = new Map(reversed.map((row) => [row.span.span_id, row]));
  const byService = new Map(reversed.map((row) => [`${row.span.span_id} ${row.span.service}`, row]));
  for (const log of logs) {
    const row = byService.get(`${log.span_id} ${log.service}`) ?? byId.get(log.span_id);
    if (!row) continue;
    found.set(row, found.get(row) ?? []);
    found.get(row)?.push(log);
  }
  return found;
}
