//! Periodic tasks: entries with a schedule, sent when they are due. Any number of processes may run the same entries
//! and none of them leads: the broker keeps each entry's last tick, and whoever moves it on sends the task in the
//! same step. So each tick is sent once, whichever processes are alive.

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

const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// When a periodic task is due.
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
    /// This long after the tick before; see [`Schedule::every`].
    Every(Interval),
    /// At times of the clock; see [`Schedule::cron`].
    Cron(Box<Cron>),
}

/// The time between two ticks: whole microseconds, at least a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub(crate) SignedDuration);

/// Why a schedule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The interval is shorter than a millisecond or longer than there is time.
    #[error("an interval is a millisecond at least")]
    Interval,
    /// The expression cannot be used.
    #[error(transparent)]
    Cron(#[from] CronError),
}

impl Schedule {
    /// A tick every `interval`, the first one that long after the entry was first seen. The time between ticks does
    /// not depend on when a task was really sent.
    ///
    /// # Errors
    /// When it is shorter than a millisecond.
    pub fn every(interval: Duration) -> Result<Self, ScheduleError> {
        let micros = i64::try_from(interval.as_micros()).map_err(|_| ScheduleError::Interval)?;
        if interval < SHORTEST_INTERVAL {
            return Err(ScheduleError::Interval);
        }
        Ok(Self::Every(Interval(SignedDuration::from_micros(micros))))
    }

    /// Ticks at the times of a cron expression with Celery's rules, in UTC; see [`Cron`] for what it may say, and
    /// [`Cron::in_zone`] for other time zones.
    ///
    /// # Errors
    /// When it is no expression of five fields, or one that never comes.
    pub fn cron(expression: &str) -> Result<Self, ScheduleError> {
        Ok(expression.parse::<Cron>()?.into())
    }

    /// The first tick after `after`, which for an interval must itself be a tick. `None` at the end of all time.
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
    /// A task to be sent at every tick of a schedule. The name must be the same in all processes and releases: the
    /// broker knows the entry by it. `signature` makes the task for a tick; an id that it sets is replaced.
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

    /// What to do about ticks that were missed; one run for all of them by default.
    #[must_use]
    pub fn catch_up(self, catch_up: CatchUp) -> Self {
        Self { catch_up, ..self }
    }

    /// The id of the task that is sent for a tick. It depends on the entry's name and the tick only, so that a task
    /// which was sent twice after all can be recognised.
    #[must_use]
    pub fn task_id(&self, tick: Timestamp) -> TaskId {
        let name = format!("celeriac.schedule\0{}\0{}", self.name, time::format(tick));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into()
    }
}
