//! Periodic tasks: entries with a schedule, sent when they are due. Any number of processes may run the same entries
//! and none of them leads: the broker keeps each entry's last tick, and whoever moves it on sends the task in the
//! same step. So each tick is sent once, whichever processes are alive.

mod cron;
mod due;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::{
    cron::{Cron, CronError},
    due::CatchUp,
};
use crate::{
    backoff::Backoff,
    broker::{Broker, BrokerError},
    message::Message,
    signature::Signature,
    streak::Streak,
    system, time,
};

/// The longest sleep: a clock that jumps is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// A last tick further ahead than this was set by a clock that was wrong, and would stop its entry until then.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(1);

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

/// What brokers keep for schedulers.
#[async_trait]
pub trait Timetable: Send + Sync {
    /// The last tick of each of these entries, in their order, and the time by the clock that all schedulers
    /// share.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError>;

    /// Sets an entry's last tick to `to` and publishes `message`, in one step, if the last tick is still `from`.
    /// False, and nothing has happened, when it is not.
    ///
    /// # Errors
    /// When the broker did not confirm. Repeating the call is harmless.
    async fn advance(
        &self,
        entry: &str,
        from: Option<&[u8]>,
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError>;
}

/// What [`Timetable::last_ticks`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTicks {
    /// The shared clock.
    pub now: Timestamp,
    /// The last ticks as they are kept; `None` for an entry that nobody has seen yet.
    pub ticks: Vec<Option<Vec<u8>>>,
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
    pub fn task_id(&self, tick: Timestamp) -> Uuid {
        let name = format!("celeriac.schedule\0{}\0{}", self.name, time::format(tick));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

/// Sends periodic tasks. Any number of processes may run the same entries.
///
/// ```no_run
/// # async fn example(broker: std::sync::Arc<dyn celeriac::Broker>) -> Result<(), celeriac::ScheduleError> {
/// use celeriac::{Entry, Schedule, Scheduler, Signature};
/// use tokio_util::sync::CancellationToken;
///
/// let nightly = Entry::new("clean up", Schedule::cron("30 3 * * *")?, |_| Signature::new("app.clean_up"));
/// Scheduler::new(broker).entry(nightly).run(CancellationToken::new()).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scheduler {
    broker: Arc<dyn Broker>,
    entries: Vec<Entry>,
    origin: String,
    reply_to: String,
}

impl Scheduler {
    /// A scheduler without entries.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            entries: Vec::new(),
            origin: format!("gen{}@{}", std::process::id(), system::hostname()),
            reply_to: system::random_id().to_string(),
        }
    }

    /// Adds an entry, in the place of one with the same name.
    ///
    /// An entry that the broker has never seen starts from now: its first tick is the first one to come. Its last
    /// tick is kept from then on, also while no scheduler runs.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.retain(|other| other.name != entry.name);
        self.entries.push(entry);
        self
    }

    /// Sends what is due until `shutdown`. While the broker is away this goes on trying; what was missed until it is
    /// back is caught up with as each entry says.
    pub async fn run(self, shutdown: CancellationToken) {
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut streak = Streak::new("sending periodic tasks");
        while !shutdown.is_cancelled() {
            let sleep = if names.is_empty() {
                LONGEST_SLEEP
            } else {
                match self.pass(&names, &shutdown).await {
                    Ok(sleep) => {
                        streak.worked();
                        backoff.reset();
                        sleep
                    }
                    Err(error) => {
                        streak.failed(&error);
                        backoff.pause()
                    }
                }
            };
            shutdown.run_until_cancelled(tokio::time::sleep(sleep)).await;
        }
    }

    /// Sends what is due now, and says how long nothing else is. An entry that the broker refuses does not hold up
    /// the others.
    async fn pass(&self, names: &[String], shutdown: &CancellationToken) -> Result<Duration, BrokerError> {
        let LastTicks { now, ticks } = self.broker.last_ticks(names).await?;
        let mut sleep = LONGEST_SLEEP;
        let mut refusal = None;
        for (entry, last) in self.entries.iter().zip(ticks) {
            match self.send_due(entry, last, now, shutdown).await {
                Ok(Some(next)) => {
                    let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                    sleep = sleep.min(wait);
                }
                Ok(None) => {}
                Err(error @ BrokerError::Unavailable { .. }) => return Err(error),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error),
            None => Ok(sleep),
        }
    }

    /// Brings one entry up to `now`, and says when it is due next.
    async fn send_due(
        &self,
        entry: &Entry,
        last: Option<Vec<u8>>,
        now: Timestamp,
        shutdown: &CancellationToken,
    ) -> Result<Option<Timestamp>, BrokerError> {
        let tick = last.as_deref().and_then(read_tick);
        let Some(last_tick) = tick.filter(|tick| tick.duration_since(now) <= MOST_AHEAD) else {
            match (&last, tick) {
                (None, _) => info!(entry = entry.name, "a periodic task is new and starts from now"),
                (Some(_), None) => warn!(
                    entry = entry.name,
                    "the last tick of a periodic task cannot be read; it starts from now"
                ),
                (Some(_), Some(tick)) => warn!(
                    entry = entry.name,
                    %tick,
                    "the last tick of a periodic task lies in the future; it starts from now"
                ),
            }
            let start = time::format(now);
            let moved = self
                .broker
                .advance(&entry.name, last.as_deref(), &start, None)
                .await?;
            return Ok(if moved {
                entry.schedule.next(now)
            } else {
                Some(now)
            });
        };
        let Some(first) = due::first(&entry.schedule, entry.catch_up, last_tick, now) else {
            return Ok(entry.schedule.next(last_tick));
        };
        if let Some(missed) = entry.schedule.next(last_tick).filter(|tick| *tick < first.tick) {
            info!(entry = entry.name, since = %missed, "ticks of a periodic task were missed and are left out");
        }
        let mut from = last.unwrap_or_default();
        let mut tick = first.tick;
        loop {
            let to = time::format(tick);
            let message = first.send.then(|| self.message(entry, tick, now));
            if !self
                .broker
                .advance(&entry.name, Some(&from), &to, message)
                .await?
            {
                // Another scheduler was quicker: see what it has left.
                return Ok(Some(now));
            }
            if first.send {
                info!(entry = entry.name, task_id = %entry.task_id(tick), %tick, "periodic task sent");
            } else {
                info!(entry = entry.name, %tick, "a tick of a periodic task came too late and is left out");
            }
            let next = entry.schedule.next(tick);
            match next {
                Some(next) if next <= now && !shutdown.is_cancelled() => {
                    (from, tick) = (to.into_bytes(), next);
                }
                next => return Ok(next),
            }
        }
    }

    fn message(&self, entry: &Entry, tick: Timestamp, now: Timestamp) -> Message {
        (entry.signature)(tick)
            .id(entry.task_id(tick))
            .into_message(now, &self.origin, &self.reply_to)
    }
}

fn read_tick(raw: &[u8]) -> Option<Timestamp> {
    time::parse(std::str::from_utf8(raw).ok()?)
}
