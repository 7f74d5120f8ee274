//! The scheduler: sends the tasks that are due and sleeps until the next one.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Entry, due};
use crate::{
    back_off::BackOff,
    broker::{Broker, BrokerError, LastTicks},
    canvas::SendContext,
    failure_log::FailureLog,
    log::{info, warn},
    message::Message,
    observer::{NoopObserver, Observer, observed},
    system, time,
};

/// Maximum time between two passes, and so the time within which a change to the clock is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(5);
/// Last ticks further in the future than this are discarded: they were stored while a clock was wrong, and
/// would stop the entry until their time.
const MAX_CLOCK_LEAD: SignedDuration = SignedDuration::from_hours(1);

/// Sends periodic tasks. Any number of processes may run the same entries; each tick is sent once.
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
#[must_use = "a scheduler sends nothing until it runs"]
pub struct Scheduler {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    entries: Vec<Entry>,
    origin: String,
    reply_to: String,
}

impl Scheduler {
    /// Creates a scheduler without entries.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            broker,
            observer: Arc::new(NoopObserver),
            entries: Vec::new(),
            origin: system::origin(),
            reply_to: system::random_id().to_string(),
        }
    }

    /// Adds an entry, replacing any entry with the same name.
    ///
    /// An entry that is new to the broker starts from the current time: its first tick is the next one. From
    /// then on the broker keeps its last tick, even while no scheduler runs.
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.retain(|other| other.name != entry.name);
        self.entries.push(entry);
        self
    }

    /// Reports every send to `observer`. When several schedulers compete for a tick, only the one that sends
    /// it finishes its span.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Sends due tasks until `shutdown` is cancelled. Retries while the broker is unavailable; the
    /// [`CatchUp`](super::CatchUp) of an entry applies to the ticks missed during the outage.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.entries.is_empty() {
            return shutdown.cancelled().await;
        }
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let mut back_offs: Vec<EntryBackOff> = names.iter().map(|_| EntryBackOff::default()).collect();
        let mut back_off = BackOff::default();
        let mut failures = FailureLog::new("sending periodic tasks");
        while !shutdown.is_cancelled() {
            let sleep = match self.send_all_due(&names, &mut back_offs, &shutdown).await {
                Ok(sleep) => {
                    failures.worked();
                    back_off.reset();
                    sleep
                }
                Err(error) => {
                    failures.failed(&error);
                    back_off.next_delay()
                }
            };
            shutdown.run_until_cancelled(tokio::time::sleep(sleep)).await;
        }
    }

    /// Sends all tasks that are due and returns the time until the next pass. An entry whose task the broker
    /// rejects is retried with its own back-off and does not delay the others.
    async fn send_all_due(
        &self,
        names: &[String],
        back_offs: &mut [EntryBackOff],
        shutdown: &CancellationToken,
    ) -> Result<Duration, BrokerError> {
        let LastTicks { now, ticks } = self.broker.last_ticks(names).await?;
        let mut sleep = MAX_SLEEP;
        for ((entry, last), back_off) in self.entries.iter().zip(ticks).zip(back_offs) {
            let wait = match back_off.left() {
                Some(left) => left,
                None => match self.send_due(entry, last, now, shutdown).await {
                    Ok(next) => {
                        back_off.worked(&entry.name);
                        // A tick that has passed in the meantime is due immediately.
                        let wait = |next: Timestamp| Duration::try_from(next.duration_since(now));
                        next.map_or(MAX_SLEEP, |next| wait(next).unwrap_or_default())
                    }
                    Err(error) if error.is_outage() => return Err(error),
                    Err(error) => back_off.failed(&entry.name, &error),
                },
            };
            sleep = sleep.min(wait);
        }
        Ok(sleep)
    }

    /// Sends the ticks of an entry up to `now` and returns the time of its next tick.
    async fn send_due(
        &self,
        entry: &Entry,
        last: Option<Vec<u8>>,
        now: Timestamp,
        shutdown: &CancellationToken,
    ) -> Result<Option<Timestamp>, BrokerError> {
        let stored = last.as_deref().map(String::from_utf8_lossy);
        let tick = stored.as_deref().and_then(time::parse);
        let Some(last_tick) = tick.filter(|tick| tick.duration_since(now) <= MAX_CLOCK_LEAD) else {
            match stored {
                None => info!(
                    celery.schedule.entry = entry.name,
                    "new periodic task; it starts from the current time"
                ),
                Some(stored) => warn!(
                    celery.schedule.entry = entry.name,
                    celery.schedule.tick = %stored,
                    "ignored an invalid or future last tick; the periodic task starts from the current time"
                ),
            }
            let start = time::format(now);
            let moved = self
                .broker
                .advance(&entry.name, last.as_deref(), &start, None)
                .await?;
            let next = || entry.schedule.next(now);
            return Ok(if moved { next() } else { Some(now) });
        };
        let Some(first) = due::first_due(&entry.schedule, entry.catch_up, last_tick, now) else {
            return Ok(entry.schedule.next(last_tick));
        };
        if let Some(missed) = entry.schedule.next(last_tick).filter(|tick| *tick < first.tick) {
            info!(
                celery.schedule.entry = entry.name,
                celery.schedule.since = %missed,
                "skipped missed ticks of a periodic task"
            );
        }
        let mut from = last.unwrap_or_default();
        let mut tick = first.tick;
        loop {
            let to = time::format(tick);
            let message = first.send.then(|| self.message(entry, tick, now));
            if !self.advance(&entry.name, &from, &to, message).await? {
                // Another scheduler was faster; the next pass reads the tick that it stored.
                return Ok(Some(now));
            }
            if first.send {
                info!(
                    celery.schedule.entry = entry.name,
                    messaging.message.id = %entry.task_id(tick),
                    celery.schedule.tick = %tick,
                    "sent a periodic task"
                );
            } else {
                info!(
                    celery.schedule.entry = entry.name,
                    celery.schedule.tick = %tick,
                    "skipped a late tick of a periodic task"
                );
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

    /// Moves the last tick of an entry to `to` and sends `message`, if there is one, in the same step.
    /// Returns false if another scheduler was faster.
    async fn advance(
        &self,
        entry: &str,
        from: &[u8],
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError> {
        let Some(mut message) = message else {
            return self.broker.advance(entry, Some(from), to, None).await;
        };
        let span = self.observer.sending(&mut message);
        let mut advance = self.broker.advance(entry, Some(from), to, Some(message));
        let moved = observed(advance.as_mut(), |poll| span.in_scope(poll)).await;
        if moved != Ok(false) {
            span.finish(moved.as_ref().map(|_| ()));
        }
        moved
    }

    fn message(&self, entry: &Entry, tick: Timestamp, now: Timestamp) -> Message {
        (entry.signature)(tick)
            .id(entry.task_id(tick))
            .into_message(&SendContext::new(now, &self.origin, &self.reply_to))
    }
}

/// Back-off of an entry whose task the broker rejects.
#[derive(Default)]
struct EntryBackOff {
    back_off: BackOff,
    until: Option<Instant>,
}

impl EntryBackOff {
    fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Returns the time to wait before the next attempt, and logs the first of a series of failures.
    fn failed(&mut self, entry: &str, error: &BrokerError) -> Duration {
        if self.until.is_none() {
            warn!(celery.schedule.entry = entry, %error, "failed to send a periodic task; retrying");
        }
        let delay = self.back_off.next_delay();
        self.until = Some(Instant::now() + delay);
        delay
    }

    fn worked(&mut self, entry: &str) {
        if self.until.take().is_some() {
            info!(
                celery.schedule.entry = entry,
                "sending a periodic task works again"
            );
            self.back_off.reset();
        }
    }
}
