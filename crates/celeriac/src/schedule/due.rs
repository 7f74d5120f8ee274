//! Selects the due ticks of an entry, including those missed while no scheduler ran.

use std::iter;

use jiff::{SignedDuration, Timestamp};

use super::{Interval, Schedule};

/// Maximum lateness of a tick that still counts as on time. Allows for a restart of the scheduler or broker.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// Treatment of ticks that were missed because no scheduler ran or the broker was unavailable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatchUp {
    /// Skip ticks that are more than half a minute late, and continue with the next one.
    Skip,
    /// Send one task for all missed ticks, with the time of the latest.
    #[default]
    Once,
    /// Send a task for each missed tick, oldest first.
    All {
        /// Maximum number of missed ticks, at least 1; earlier ones are skipped.
        at_most: usize,
    },
}

/// First tick that is due. All later ticks up to now are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DueTick {
    pub tick: Timestamp,
    /// Whether a task is sent; otherwise the tick is only recorded as passed.
    pub send: bool,
}

/// Returns the first tick after `last` that is due at `now`, or `None` if there is none.
pub(super) fn first_due(
    schedule: &Schedule,
    catch_up: CatchUp,
    last: Timestamp,
    now: Timestamp,
) -> Option<DueTick> {
    let latest = schedule.last(last, now)?;
    let missed = iter::successors(Some(latest), |tick| tick_before(schedule, last, *tick));
    let (tick, send) = match catch_up {
        CatchUp::Once => (latest, true),
        CatchUp::Skip => (latest, now.duration_since(latest) <= TOLERANCE),
        CatchUp::All { at_most } => (missed.take(at_most.max(1)).last()?, true),
    };
    Some(DueTick { tick, send })
}

impl Schedule {
    /// Returns the latest tick at or before `until`, if it is later than `after`, which is itself a tick.
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

/// Returns the tick before `tick`, if it is later than `last`.
fn tick_before(schedule: &Schedule, last: Timestamp, tick: Timestamp) -> Option<Timestamp> {
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

    fn send(tick: &str) -> Option<DueTick> {
        Some(DueTick {
            tick: at(tick),
            send: true,
        })
    }

    #[test]
    fn no_tick_is_due_before_its_time() {
        for schedule in schedules() {
            for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All { at_most: 9 }] {
                for now in ["12:00:00", "12:09:59.999999", "11:55:00"] {
                    assert_eq!(
                        first_due(&schedule, catch_up, at("12:00:00"), at(now)),
                        None,
                        "{now}"
                    );
                }
                let due = first_due(&schedule, catch_up, at("12:00:00"), at("12:10:00"));
                assert_eq!(due, send("12:10:00"), "{catch_up:?}");
            }
        }
    }

    #[test]
    fn missed_ticks_are_treated_as_the_entry_specifies() {
        for schedule in schedules() {
            let due = |catch_up, now| first_due(&schedule, catch_up, at("12:00:00"), at(now));
            assert_eq!(due(CatchUp::Once, "12:45:00"), send("12:40:00"));
            assert_eq!(due(CatchUp::All { at_most: 9 }, "12:45:00"), send("12:10:00"));
            assert_eq!(due(CatchUp::All { at_most: 4 }, "12:45:00"), send("12:10:00"));
            assert_eq!(due(CatchUp::All { at_most: 2 }, "12:45:00"), send("12:30:00"));
            assert_eq!(due(CatchUp::All { at_most: 0 }, "12:45:00"), send("12:40:00"));
            assert_eq!(
                due(CatchUp::Skip, "12:40:30"),
                send("12:40:00"),
                "30 seconds late is on time"
            );
            let late = Some(DueTick {
                tick: at("12:40:00"),
                send: false,
            });
            assert_eq!(due(CatchUp::Skip, "12:40:30.000001"), late);
        }
    }
}
