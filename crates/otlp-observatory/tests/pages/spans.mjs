// Spans for the tests of the trace page.

const FIRST = 1_795_342_907_000_000_000n;

/** Start of every trace. */
export const START = String(FIRST);

/** A span as the JSON API has it. `from` and `duration` are in nanoseconds; `rest` replaces other fields. */
export const span = (id, parent, from, duration, rest = {}) => ({
  span_id: id,
  parent_span_id: parent,
  service: 'shop',
  name: id,
  kind: 'internal',
  start_unix_nano: String(FIRST + BigInt(from)),
  duration_ns: duration,
  status: 'unset',
  status_message: '',
  attributes: {},
  resource: {},
  events: [],
  links: [],
  ...rest,
});
