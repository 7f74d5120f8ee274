//! Running entries: what is due is sent, and then this sleeps until something is.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Entry, LastTicks, due};
use crate::{
    backoff::Backoff,
    broker::{Broker, BrokerError},
    log::{info, warn},
    message::Message,
    observer::{Observer, SendInfo, Unobserved, observed},
    streak::Streak,
    system, time,
};

/// The longest sleep: a clock that jumps is noticed after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A last tick further ahead than this was set by a clock that was wrong, and would stop its entry until then.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(1);

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
    observer: Watching,
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
            observer: Watching(Arc::new(Unobserved)),
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

    /// Reports every send to this observer. Of several schedulers one sends what is due; the others' sends are called off.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self {
            observer: Watching(observer),
            ..self
        }
    }

    /// Sends what is due until `shutdown`. While the broker is away this goes on trying; what was missed until it is
    /// back is caught up with as each entry says.
    pub async fn run(self, shutdown: CancellationToken) {
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let mut pauses: Vec<Pause> = names.iter().map(|_| Pause::default()).collect();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut streak = Streak::new("sending periodic tasks");
        while !shutdown.is_cancelled() {
            let sleep = if names.is_empty() {
                LONGEST_SLEEP
            } else {
                match self.pass(&names, &mut pauses, &shutdown).await {
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

    /// Sends what is due now, and says how long nothing else is. An entry that the broker refuses is tried again
    /// after a pause of its own and does not hold up the others.
    async fn pass(
        &self,
        names: &[String],
        pauses: &mut [Pause],
        shutdown: &CancellationToken,
    ) -> Result<Duration, BrokerError> {
        let LastTicks { now, ticks } = self.broker.last_ticks(names).await?;
        let mut sleep = LONGEST_SLEEP;
        for ((entry, last), pause) in self.entries.iter().zip(ticks).zip(pauses) {
            let wait = match pause.left() {
                Some(left) => left,
                None => match self.send_due(entry, last, now, shutdown).await {
                    Ok(next) => {
                        pause.worked(&entry.name);
                        // A time that has passed meanwhile is due at once.
                        let wait = |next: Timestamp| Duration::try_from(next.duration_since(now));
                        next.map_or(LONGEST_SLEEP, |next| wait(next).unwrap_or_default())
                    }
                    Err(error @ BrokerError::Unavailable { .. }) => return Err(error),
                    Err(error) => pause.failed(&entry.name, &error),
                },
            };
            sleep = sleep.min(wait);
        }
        Ok(sleep)
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
            if !self.advance(&entry.name, &from, &to, message).await? {
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

    /// Moves an entry on, and with a message sends that, which is reported. False when another scheduler was quicker.
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
        let info = SendInfo {
            task: &message.headers.task,
            id: &message.headers.id,
            queue: &message.properties.delivery_info.routing_key,
        };
        let span = self.observer.0.send(&info, &mut message.headers.extra);
        let mut advance = self.broker.advance(entry, Some(from), to, Some(message));
        let moved = observed(advance.as_mut(), |poll| span.during(poll)).await;
        if moved != Ok(false) {
            span.finish(moved.as_ref().map(|_| ()));
        }
        moved
    }

    fn message(&self, entry: &Entry, tick: Timestamp, now: Timestamp) -> Message {
        (entry.signature)(tick)
            .id(entry.task_id(tick))
            .into_message(now, &self.origin, &self.reply_to)
    }
}

/// The observer, which has nothing to show.
struct Watching(Arc<dyn Observer>);

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// When an entry that the broker refuses is tried again.
struct Pause {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            until: None,
        }
    }
}

impl Pause {
    fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Says it the first time, and how long to wait.
    fn failed(&mut self, entry: &str, error: &BrokerError) -> Duration {
        if self.until.is_none() {
            warn!(entry, %error, "a periodic task is not sent; trying until it is");
        }
        let pause = self.backoff.pause();
        self.until = Some(Instant::now() + pause);
        pause
    }

    fn worked(&mut self, entry: &str) {
        if self.until.take().is_some() {
            info!(entry, "a periodic task is sent again");
            self.backoff.reset();
        }
    }
}

fn read_tick(raw: &[u8]) -> Option<Timestamp> {
    time::parse(std::str::from_utf8(raw).ok()?)
}
