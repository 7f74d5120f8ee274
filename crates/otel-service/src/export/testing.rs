//! What the tests of the loops share: an exporter that does as it is told, and the log events of a test's thread.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::delivery::Delivery;
use super::measures::Exported;
use super::outlet::{Export, Outlet};
use super::stop::{End, Stop};
use crate::config::{Destination, Signal};
use crate::otlp::{Accepted, Request, SendError};

/// What comes of one export.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Taken,
    Failed,
    /// The collector asks for this pause.
    Later(Duration),
    /// No answer before the deadline.
    Silence,
    /// None after it either.
    Stuck,
}

/// Does one thing after the other, then takes everything, and notes when it was called.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    script: Arc<Mutex<VecDeque<Outcome>>>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

impl Scripted {
    pub(super) fn new(script: &[Outcome]) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            calls: Arc::default(),
        }
    }

    /// The times of the calls in whole milliseconds since `start`.
    pub(super) fn calls(&self, start: Instant) -> Vec<u128> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| (*call - start).as_millis()).collect()
    }

    /// An outlet to this exporter, with the way to stop it.
    pub(super) fn outlet(&self, timeout: Duration) -> (watch::Sender<Option<End>>, Outlet<Self>) {
        let (ask, stop) = Stop::new();
        let delivery = Arc::new(Delivery::new("traces"));
        let exported = Arc::new(Exported::new(Signal::Traces, &Destination::Console));
        (ask, Outlet::new(self.clone(), delivery, exported, timeout, stop))
    }
}

impl Export for Scripted {
    async fn send(&mut self, _: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        self.calls.lock().unwrap().push(Instant::now());
        let outcome = self.script.lock().unwrap().pop_front().unwrap_or(Outcome::Taken);
        let error = |error_type, retry_after| SendError {
            error_type,
            retry_after,
            message: error_type.to_owned(),
        };
        match outcome {
            Outcome::Taken => Ok(Accepted::default()),
            Outcome::Failed => Err(error("500", None)),
            Outcome::Later(pause) => Err(error("429", Some(pause))),
            Outcome::Silence => {
                sleep_until(deadline).await;
                Err(error("timeout", None))
            }
            Outcome::Stuck => pending().await,
        }
    }
}

/// The messages of events on this thread for as long as it lives.
pub(super) struct Told {
    messages: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Told {
    pub(super) fn new() -> Self {
        let messages = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Messages(Arc::clone(&messages)));
        Self {
            messages,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// How many events have had this in their message or their fields.
    pub(super) fn count(&self, text: &str) -> usize {
        let messages = self.messages.lock().unwrap();
        messages.iter().filter(|message| message.contains(text)).count()
    }
}

struct Messages(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}
