//! Clocks that disagree: spans whose times contradict those of their parent. A child starts after its parent, and a request
//! to another service starts before its caller ends; spans of one process share a clock and its error.

/// Difference between two clocks that may be due to their resolution, in nanoseconds.
const TOLERANCE: i128 = 1_000_000;

/// Distance from its parent beyond which the start of a span is not plausible: a day, in nanoseconds.
const MAX_DISTANCE: i128 = 86_400_000_000_000;

/// Times of a span, and what they may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) start: u64,
    pub(crate) duration: u64,
    /// Number of the process's clock within the trace.
    pub(crate) clock: usize,
    pub(crate) failed: bool,
    /// Whether the span sends a message, so that its children may start after it.
    pub(crate) sends: bool,
    /// Whether the span processes a message, so that it may start after its parent.
    pub(crate) receives: bool,
}

/// Returns the nanoseconds to add to the times of `span`, so that they are plausible below `parent`, whose own offset is
/// `parent_offset`; 0 if they are plausible as they are.
pub(crate) fn offset(span: &Times, parent: &Times, parent_offset: i64) -> i64 {
    let same_clock = span.clock == parent.clock;
    let inherited = if same_clock { i128::from(parent_offset) } else { 0 };
    let parent_start = i128::from(parent.start) + i128::from(parent_offset);
    let parent_end = parent_start + i128::from(parent.duration);
    let start = i128::from(span.start) + inherited;
    let is_early = start < parent_start - TOLERANCE;
    let is_far = start > parent_end + MAX_DISTANCE;
    // A caller that gave up may have ended before the service started.
    let is_async = same_clock || parent.sends || span.receives || parent.failed;
    let is_late = !is_async && start > parent_end + TOLERANCE;
    if !(is_early || is_far || is_late) {
        return clamp(inherited);
    }
    let first = parent_start - i128::from(span.start);
    let last = parent_end - i128::from(span.start) - i128::from(span.duration);
    // Without further knowledge, both directions of a request take the same time.
    clamp(if last > first { (first + last) / 2 } else { first })
}

fn clamp(offset: i128) -> i64 {
    i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX })
}

/// Whether the times of `span` count for the duration of a trace with this root.
pub(crate) fn is_in_scale(span: &Times, offset: i64, root: &Times) -> bool {
    let start = i128::from(span.start);
    let root_start = i128::from(root.start);
    let is_near =
        start >= root_start - TOLERANCE && start <= root_start + i128::from(root.duration) + MAX_DISTANCE;
    is_near && (offset == 0 || span.clock == root.clock)
}

/// Returns `time` moved by `offset`.
pub(crate) fn moved(time: u64, offset: i64) -> u64 {
    time.saturating_add_signed(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn times(clock: usize, start: u64, duration: u64) -> Times {
        Times {
            clock,
            start: start * MS,
            duration: duration * MS,
            ..Times::default()
        }
    }

    fn of(span: &Times, parent: &Times) -> i64 {
        offset(span, parent, 0) / MS as i64
    }

    #[test]
    fn contradictions_between_clocks_are_found_in_both_directions() {
        let parent = times(0, 10_000, 200);
        assert_eq!(of(&times(1, 10_050, 100), &parent), 0);
        assert_eq!(
            of(&times(1, 10_150, 100), &parent),
            0,
            "a response may end before its service"
        );
        assert_eq!(of(&times(1, 7_000, 100), &parent), 3_050);
        assert_eq!(of(&times(1, 13_000, 100), &parent), -2_950);
        assert_eq!(
            of(&times(1, 7_000, 500), &parent),
            3_000,
            "longer than its parent"
        );
        assert_eq!(of(&times(0, 0, 0), &parent), 10_100, "an unset start");
    }

    #[test]
    fn messages_background_work_and_abandoned_calls_may_start_after_their_parent() {
        let parent = times(0, 10_000, 200);
        let late = times(1, 13_000, 100);
        assert_eq!(
            of(
                &late,
                &Times {
                    sends: true,
                    ..parent
                }
            ),
            0
        );
        assert_eq!(
            of(
                &late,
                &Times {
                    failed: true,
                    ..parent
                }
            ),
            0
        );
        assert_eq!(
            of(
                &Times {
                    receives: true,
                    ..late
                },
                &parent
            ),
            0
        );
        assert_eq!(of(&times(0, 13_000, 100), &parent), 0);
    }

    #[test]
    fn spans_of_one_clock_share_its_offset() {
        let parent = times(1, 7_000, 100);
        assert_eq!(
            offset(&times(1, 7_010, 10), &parent, 3_050 * MS as i64),
            3_050 * MS as i64
        );
        assert_eq!(offset(&times(0, 10_080, 10), &parent, 3_050 * MS as i64), 0);
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let (first, last) = (Times::default(), times(0, 0, 0));
        let end = Times {
            start: u64::MAX,
            duration: u64::MAX,
            ..last
        };
        assert_eq!(offset(&end, &first, 0), i64::MIN);
        assert_eq!(offset(&first, &end, 0), i64::MAX);
    }
}
