//! Which ticks of an entry are to be sent now, after any time in which nobody looked.

use jiff::{SignedDuration, Timestamp};

use super::{Interval, Schedule};

/// A tick is on time when it is at most this late: a restart of the processes or of the broker may lie in between.
const ON_TIME: SignedDuration = SignedDuration::from_secs(30);

/// What to do about ticks that passed while no scheduler ran or the broker was away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Leave out those that are more than half a minute late, and go on with the next.
    Skip,
    /// Send one task for all of them, for the latest.
    #[default]
    Once,
    /// Send a task for each, the oldest first.
    All {
        /// The latest so many (one at least); those before them are left out.
        at_most: usize,
    },
}

/// What comes first. All ticks after it, up to now, are treated the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub tick: Timestamp,
    /// Whether a task is sent; otherwise the tick is only marked as past.
    pub send: bool,
}

/// The first tick after `last` that has to be dealt with; `None` when none is due at `now`.
pub(super) fn first(
    schedule: &Schedule,
    catch_up: CatchUp,
    last: Timestamp,
    now: Timestamp,
) -> Option<First> {
    let mut tick = schedule.last(last, now)?;
    let mut send = true;
    match catch_up {
        CatchUp::Once => {}
        CatchUp::Skip => send = now.duration_since(tick) <= ON_TIME,
        CatchUp::All { at_most } => {
            for _ in 1..at_most {
                match before(schedule, last, tick) {
                    Some(earlier) => tick = earlier,
                    None => break,
                }
            }
        }
    }
    Some(First { tick, send })
}

impl Schedule {
    /// The latest tick after `after`, itself a tick, and not after `until`.
    pub(crate) fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(Interval(interval)) => {
                let passed = until.as_nanosecond() - after.as_nanosecond();
                let count = passed.div_euclid(interval.as_nanos());
                let tick = after.as_nanosecond() + count * interval.as_nanos();
                (count > 0).then(|| Timestamp::from_nanosecond(tick).ok())?
            }
            Self::Cron(cron) => cron.last(after, until),
        }
    }
}

/// The tick before another tick, if it is after `last`.
fn before(schedule: &Schedule, last: Timestamp, tick: Timestamp) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(Interval(interval)) => {
            tick.checked_sub(*interval).ok().filter(|earlier| *earlier > last)
        }
        Schedule::Cron(cron) => cron.last(last, tick.checked_sub(SignedDuration::from_nanos(1)).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn schedules() -> [Schedule; 2] {
        [
            Schedule::every(Duration::from_secs(600)).unwrap(),
            Schedule::cron("*/10 * * * *").unwrap(),
        ]
    }

    fn send(tick: &str) -> Option<First> {
        Some(First {
            tick: at(tick),
            send: true,
        })
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        for schedule in schedules() {
            for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { at_most: 9 }] {
                for now in ["12:00:00", "12:09:59.999999", "11:55:00"] {
                    assert_eq!(first(&schedule, catch_up, at("12:00:00"), at(now)), None, "{now}");
                }
                let due = first(&schedule, catch_up, at("12:00:00"), at("12:10:00"));
                assert_eq!(due, send("12:10:00"), "{catch_up:?}");
            }
        }
    }

    #[test]
    fn missed_ticks_are_caught_up_with_as_the_entry_says() {
        for schedule in schedules() {
            let due = |catch_up, now| first(&schedule, catch_up, at("12:00:00"), at(now));
            assert_eq!(due(CatchUp::Once, "12:45:00"), send("12:40:00"));
            assert_eq!(due(CatchUp::All { at_most: 9 }, "12:45:00"), send("12:10:00"));
            assert_eq!(due(CatchUp::All { at_most: 4 }, "12:45:00"), send("12:10:00"));
            assert_eq!(due(CatchUp::All { at_most: 2 }, "12:45:00"), send("12:30:00"));
            assert_eq!(due(CatchUp::All { at_most: 0 }, "12:45:00"), send("12:40:00"));
            assert_eq!(due(CatchUp::Skip, "12:40:30"), send("12:40:00"), "it is on time");
            let late = Some(First {
                tick: at("12:40:00"),
                send: false,
            });
            assert_eq!(due(CatchUp::Skip, "12:40:30.000001"), late);
        }
    }
}
