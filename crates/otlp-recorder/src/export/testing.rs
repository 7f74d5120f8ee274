//! Support for tests of the export loops: a transport with scripted replies, and a capture of the log events
//! of the test's thread.

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
use super::exporter::{ExportTarget, Exporter};
use super::shutdown::{Shutdown, ShutdownLimit};
use crate::destination::{CustomExporter, Request};
use crate::signal::Signal;
use crate::transport::{Accepted, Retry, SendError, Transport};

/// The result of one export.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Accepted,
    Failed,
    /// The request is too large.
    TooLarge,
    /// The collector requests a retry delay.
    RetryAfter(Duration),
    /// No response before the deadline.
    TimesOut,
    /// No response at all, even after the deadline.
    Hangs,
}

/// A transport that returns scripted replies, then accepts everything, and records the times of its calls.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    script: Arc<Mutex<VecDeque<Reply>>>,
    calls: Arc<Mutex<Vec<Instant>>>,
}

impl Scripted {
    pub(super) fn new(script: &[Reply]) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            calls: Arc::default(),
        }
    }

    /// Returns the times of the calls in milliseconds since `start`.
    pub(super) fn calls(&self, start: Instant) -> Vec<u128> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| (*call - start).as_millis()).collect()
    }

    /// Returns an exporter with this transport, and the sender that stops it.
    pub(super) fn exporter(
        &self,
        timeout: Duration,
    ) -> (watch::Sender<Option<ShutdownLimit>>, Exporter<Self>) {
        let (stop, shutdown) = Shutdown::new();
        let delivery = Arc::new(Delivery::new(Signal::Traces, None));
        let destination = CustomExporter::new("test", |_| Ok(())).into();
        let target = ExportTarget::new(Signal::Traces, destination, timeout);
        (stop, Exporter::new(&target, self.clone(), delivery, shutdown))
    }
}

impl Transport for Scripted {
    async fn send(&mut self, _: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        self.calls.lock().unwrap().push(Instant::now());
        let reply = self.script.lock().unwrap().pop_front().unwrap_or(Reply::Accepted);
        let error = |error_type: &'static str, retry| SendError {
            error_type: error_type.into(),
            message: error_type.to_owned(),
            retry,
        };
        match reply {
            Reply::Accepted => Ok(Accepted::default()),
            Reply::Failed => Err(error("500", Retry::Never)),
            Reply::TooLarge => Err(error("413", Retry::Smaller(0))),
            Reply::RetryAfter(pause) => Err(error("429", Retry::After(pause))),
            Reply::TimesOut => {
                sleep_until(deadline).await;
                Err(error("timeout", Retry::Never))
            }
            Reply::Hangs => pending().await,
        }
    }
}

/// Captures the log events of the current thread until dropped.
pub(super) struct LogEvents {
    messages: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl LogEvents {
    pub(super) fn new() -> Self {
        let messages = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Messages(Arc::clone(&messages)));
        Self {
            messages,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Returns the number of events with this text in their message or fields.
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
