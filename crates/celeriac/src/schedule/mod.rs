//! Periodic tasks: entries with a schedule, sent when they are due. Any number of processes may run the same
//! entries without a leader: the broker stores each entry's last tick, and the process that advances it sends
//! the task in the same step, so each tick is sent once.

mod cron;
mod due;
mod run;

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use uuid::Uuid;

pub use self::{
    cron::{Cron, CronError},
    due::CatchUp,
    run::Scheduler,
};
use crate::{signature::Signature, task_id::TaskId, time};

const MIN_INTERVAL_MICROS: i64 = 1000;

/// Times at which a periodic task is due.
///
/// ```
/// use std::time::Duration;
/// use celeriac::Schedule;
///
/// let often = Schedule::every(Duration::from_secs(30))?;
/// let workday_mornings = Schedule::cron("0 7 * * mon-fri")?;
/// # Ok::<(), celeriac::ScheduleError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Schedule {
    /// Fixed interval; see [`Schedule::every`].
    Every(Interval),
    /// Times of a cron expression; see [`Schedule::cron`].
    Cron(Box<Cron>),
}

/// Time between two ticks, in whole microseconds, at least a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub(crate) SignedDuration);

/// Reason a schedule is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The interval is shorter than a millisecond, or too long to represent.
    #[error("an interval must be at least a millisecond")]
    Interval,
    /// The cron expression is invalid.
    #[error(transparent)]
    Cron(#[from] CronError),
}

impl Schedule {
    /// Creates a schedule with a tick every `interval`, independent of the time at which tasks are actually
    /// sent. The first tick is one interval after the broker first sees the entry.
    ///
    /// # Errors
    /// Returns an error if the interval is shorter than a millisecond.
    pub fn every(interval: Duration) -> Result<Self, ScheduleError> {
        let micros = i64::try_from(interval.as_micros()).ok();
        let micros = micros.filter(|micros| *micros >= MIN_INTERVAL_MICROS);
        let micros = micros.ok_or(ScheduleError::Interval)?;
        Ok(Self::Every(Interval(SignedDuration::from_micros(micros))))
    }

    /// Creates a schedule from a cron expression with Celery's rules, in UTC; see [`Cron`] for the syntax,
    /// and [`Cron::in_zone`] for other time zones.
    ///
    /// # Errors
    /// Returns an error if the expression is invalid, or matches no date.
    pub fn cron(expression: &str) -> Result<Self, ScheduleError> {
        Ok(expression.parse::<Cron>()?.into())
    }

    /// Returns the first tick after `after`, or `None` if there is none. For an interval, `after` must be a
    /// tick.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(Interval(interval)) => after.checked_add(*interval).ok(),
            Self::Cron(cron) => cron.next(after),
        }
    }
}

impl From<Cron> for Schedule {
    fn from(cron: Cron) -> Self {
        Self::Cron(Box::new(cron))
    }
}

/// A periodic task.
#[derive(Clone)]
#[must_use]
pub struct Entry {
    name: String,
    schedule: Schedule,
    catch_up: CatchUp,
    signature: Arc<dyn Fn(Timestamp) -> Signature + Send + Sync>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("schedule", &self.schedule)
            .field("catch_up", &self.catch_up)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// Creates an entry that sends a task at every tick of a schedule.
    ///
    /// The name identifies the entry to the broker and must be the same in all processes and releases.
    /// `signature` creates the task for a tick; the scheduler sets the task's id.
    pub fn new(
        name: impl Into<String>,
        schedule: impl Into<Schedule>,
        signature: impl Fn(Timestamp) -> Signature + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            schedule: schedule.into(),
            catch_up: CatchUp::default(),
            signature: Arc::new(signature),
        }
    }

    /// Sets the treatment of missed ticks; one task for all of them by default.
    pub fn catch_up(self, catch_up: CatchUp) -> Self {
        Self { catch_up, ..self }
    }

    /// Returns the id of the task for a tick. It depends only on the entry's name and the tick, so a task
    /// that was sent twice can be recognised.
    #[must_use]
    pub fn task_id(&self, tick: Timestamp) -> TaskId {
        let name = format!("celeriac.schedule\0{}\0{}", self.name, time::format(tick));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into()
    }
}
