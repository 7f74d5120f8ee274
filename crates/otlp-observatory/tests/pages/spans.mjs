// Spans for the tests of the trace page.
import { layOut } from '../../assets/waterfall.js';

const FIRST = 1_795_342_907_000_000_000n;

/** Start of every trace. */
export const START = String(FIRST);

/** Lays out spans that are in tree order and have unique ids. */
export function layOutTrace(spans) {
  const positions = new Map(spans.map(({ span_id: id }, index) => [id, index]));
  const placed = spans.map((one) => ({ ...one, parent_index: positions.get(one.parent_span_id) ?? null }));
  return layOut(placed, START);
}

/** A span as the JSON API has it. `from` and `duration` are in nanoseconds; `rest` replaces other fields. */
export const span = (id, parent, from, duration, rest = {}) => ({
  span_id: id,
  parent_span_id: parent,
  parent_index: null,
  missing_parent: false,
  service: 'shop',
  name: id,
  kind: 'internal',
  start_unix_nano: String(FIRST + BigInt(from)),
  duration_ns: duration,
  clock_offset_ns: 0,
  status: 'unset',
  status_message: '',
  attributes: {},
  resource: {},
  events: [],
  links: [],
  ...rest,
});
