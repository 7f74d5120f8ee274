//! Events about tasks, for whoever watches: kept in a bounded buffer and broadcast several at a time. Nothing waits for
//! them, and with events off nothing is kept: a task then costs one look at a flag.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::Shared;
use crate::{
    event::{self, EXCHANGE, Event, TASK_BATCH},
    log::warn,
    message::Message,
    repr,
    streak::Streak,
    task::{Exception, TaskOutcome},
};

/// Events are broadcast after this long, or when there are [`BATCH`].
const FLUSH: Duration = Duration::from_secs(1);
const BATCH: usize = 1000;
/// Events kept while they cannot be broadcast as fast as they come; the newest are dropped.
const MOST: usize = 4 * BATCH;
/// How long the last ones may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Dropped events are reported no more often than this.
const REPORT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Events {
    enabled: AtomicBool,
    buffer: Mutex<Buffer>,
    full: Notify,
}

#[derive(Debug, Default)]
struct Buffer {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    pub fn new(enabled: bool) -> Self {
        Self {
            enabled: AtomicBool::new(enabled),
            ..Self::default()
        }
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Turns events on or off. Returns whether they were on.
    pub fn enable(&self, enabled: bool) -> bool {
        self.enabled.swap(enabled, Ordering::Relaxed)
    }

    fn add(&self, event: Event) {
        let mut buffer = self.buffer();
        if buffer.events.len() >= MOST {
            buffer.dropped += 1;
            return;
        }
        buffer.events.push_back(event);
        if buffer.events.len() == BATCH {
            self.full.notify_one();
        }
    }

    fn take(&self) -> Vec<Event> {
        let mut buffer = self.buffer();
        let count = buffer.events.len().min(BATCH);
        buffer.events.drain(..count).collect()
    }

    /// Keeps what could not be sent for the next time, as far as there is room.
    fn put_back(&self, events: Vec<Event>) {
        let mut buffer = self.buffer();
        for event in events.into_iter().rev() {
            if buffer.events.len() < MOST {
                buffer.events.push_front(event);
            } else {
                buffer.dropped += 1;
            }
        }
    }

    fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.buffer().dropped)
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Broadcasts what the buffer holds, for as long as the worker runs.
pub(super) async fn broadcast(shared: Arc<Shared>) {
    let mut streak = Streak::new("sending task events");
    let mut reported = None::<Instant>;
    loop {
        tokio::select! {
            () = sleep(FLUSH) => {}
            () = shared.events.full.notified() => {}
        }
        match flush(&shared).await {
            Ok(()) => streak.worked(),
            Err(error) => {
                streak.failed(&error);
                // A full buffer asks at once; an outage is not to be hurried.
                sleep(FLUSH).await;
            }
        }
        if reported.is_none_or(|at| at.elapsed() > REPORT) {
            let dropped = shared.events.take_dropped();
            if dropped > 0 {
                warn!(
                    dropped,
                    "task events were dropped: they came faster than they could be sent"
                );
                reported = Some(Instant::now());
            }
        }
    }
}

/// The last events before the worker is gone.
pub(super) async fn finish(shared: &Shared) {
    // Who watches will notice by the worker's absence.
    let _ = timeout(GOODBYE, flush(shared)).await;
}

async fn flush(shared: &Shared) -> Result<(), crate::BrokerError> {
    loop {
        let batch = shared.events.take();
        if batch.is_empty() {
            return Ok(());
        }
        let text = Event::encode_batch(&shared.hostname, &batch);
        if let Err(error) = shared.broker.broadcast(EXCHANGE, TASK_BATCH, text).await {
            shared.events.put_back(batch);
            return Err(error);
        }
    }
}

/// A message has arrived.
pub(super) fn received(shared: &Shared, message: &Message) {
    if !shared.events.enabled() {
        return;
    }
    emit(
        shared,
        "task-received",
        &message.headers.id,
        event::described(message),
    );
}

/// Its code is about to run.
pub(super) fn started(shared: &Shared, id: &str) {
    if shared.events.enabled() {
        emit(shared, "task-started", id, []);
    }
}

/// Its message cannot be run and went to the dead-letter list.
pub(super) fn rejected(shared: &Shared, id: &str) {
    if shared.events.enabled() {
        emit(shared, "task-rejected", id, [("requeue", json!(false))]);
    }
}

/// It has ended: `runtime` seconds after it began, `signal` if one was asked for.
pub(super) fn ended(shared: &Shared, id: &str, outcome: &TaskOutcome, runtime: f64, signal: Option<i32>) {
    if !shared.events.enabled() {
        return;
    }
    let raised = |exception: &Exception, traceback: Option<String>| {
        let message = repr::value(&json!(exception.message));
        let exception = format!("{}({message})", exception.type_name);
        [("exception", json!(exception)), ("traceback", json!(traceback))]
    };
    match outcome {
        TaskOutcome::Success(value) => {
            let fields = [("result", json!(repr::value(value))), ("runtime", json!(runtime))];
            emit(shared, "task-succeeded", id, fields);
        }
        TaskOutcome::Retry { cause, .. } => {
            emit(shared, "task-retried", id, raised(cause, Some(cause.traceback())));
        }
        TaskOutcome::Failure(exception) => {
            let fields = raised(exception, Some(exception.traceback()));
            emit(shared, "task-failed", id, fields);
        }
        TaskOutcome::Rejected(exception, _) => emit(shared, "task-failed", id, raised(exception, None)),
        TaskOutcome::Revoked(reason) => {
            let terminated = *reason == "terminated";
            let fields = [
                ("terminated", json!(terminated)),
                ("signum", json!(signal.filter(|_| terminated))),
                ("expired", json!(*reason == "expired")),
            ];
            emit(shared, "task-revoked", id, fields);
        }
    }
}

fn emit<const N: usize>(shared: &Shared, kind: &str, id: &str, particulars: [(&'static str, Value); N]) {
    let clock = shared.clock.forward();
    let event = Event::of_task(kind, &shared.hostname, clock, id, particulars);
    shared.events.add(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_bounded_and_counts_what_it_drops() {
        let events = Events::new(true);
        let event = |number: usize| Event {
            kind: number.to_string(),
            hostname: String::new(),
            fields: serde_json::Map::new(),
        };
        (0..MOST + 3).for_each(|number| events.add(event(number)));
        assert_eq!(events.take_dropped(), 3);
        let batch = events.take();
        assert_eq!((batch.len(), batch[0].kind.as_str()), (BATCH, "0"));
        events.add(event(9999));
        events.put_back(batch);
        assert_eq!(events.take_dropped(), 1, "the oldest of those that came back");
        assert_eq!(events.take()[0].kind, "1");
    }
}
