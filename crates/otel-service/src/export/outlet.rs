//! The last step of every signal: one request goes out within its time, its outcome is told and measured, and a collector
//! that asked to be left alone for a while is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::delivery::Delivery;
use super::measures::Exported;
use super::stop::Stop;
use crate::config::{Destination, Signal};
use crate::console;
use crate::otlp::{Accepted, Request, SendError, Sender, TransportError};

/// The longest that a collector can have us wait: one that says a year may have been set up wrongly.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A way out of the process.
pub(crate) trait Export: Send + 'static {
    /// Sends one request, with retries, until `deadline` at the latest.
    fn send(
        &mut self,
        request: &Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Accepted, SendError>> + Send;
}

/// The exporters of `OTEL_*_EXPORTER`.
#[derive(Debug)]
pub(crate) enum Exporter {
    Otlp(Box<Sender>),
    Console,
}

impl Exporter {
    /// To be called on the runtime that will drive it. `None` when `destination` is nowhere.
    pub(crate) fn new(
        signal: Signal,
        destination: &Destination,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, TransportError> {
        Ok(match destination {
            Destination::Off => None,
            Destination::Console => Some(Self::Console),
            Destination::Otlp(otlp) => Some(Self::Otlp(Box::new(Sender::new(signal, otlp, warnings)?))),
        })
    }
}

impl Export for Exporter {
    async fn send(&mut self, request: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        match self {
            Self::Otlp(sender) => sender.send(request, deadline).await,
            Self::Console => match console::write(request) {
                Ok(()) => Ok(Accepted::default()),
                Err(error) => Err(SendError {
                    error_type: "io",
                    retry_after: None,
                    message: format!("standard output: {error}"),
                }),
            },
        }
    }
}

/// One signal's way out.
#[derive(Debug)]
pub(crate) struct Outlet<E> {
    pub(crate) exporter: E,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) exported: Arc<Exported>,
    /// Of one export with its retries.
    pub(crate) timeout: Duration,
    pub(crate) stop: Stop,
    /// The collector asked not to be called before.
    paused_until: Option<Instant>,
}

impl<E: Export> Outlet<E> {
    pub(crate) fn new(
        exporter: E,
        delivery: Arc<Delivery>,
        exported: Arc<Exported>,
        timeout: Duration,
        stop: Stop,
    ) -> Self {
        Self {
            exporter,
            delivery,
            exported,
            timeout,
            stop,
            paused_until: None,
        }
    }

    /// Whether the time for the end is over.
    pub(crate) fn is_over(&self) -> bool {
        let failing = self.delivery.is_failing();
        self.stop
            .end()
            .is_some_and(|end| end.of(failing) <= Instant::now())
    }

    /// Waits until the collector may be called. `false` when that is not before the end.
    pub(crate) async fn open(&mut self) -> bool {
        let Some(until) = self.paused_until else {
            return true;
        };
        tokio::select! {
            () = sleep_until(until) => {}
            end = self.stop.asked() => {
                if until > end.of(self.delivery.is_failing()) {
                    return false;
                }
                sleep_until(until).await;
            }
        }
        self.paused_until = None;
        true
    }

    /// When an export that begins now has to be done.
    pub(crate) fn until(&self) -> Instant {
        let until = Instant::now() + self.timeout;
        let failing = self.delivery.is_failing();
        self.stop.end().map_or(until, |end| until.min(end.of(failing)))
    }

    /// Sends `request` with its `items` entries; whatever comes of it is noted.
    pub(crate) async fn send(&mut self, request: &Request, items: u64, until: Instant) {
        let failing = self.delivery.is_failing();
        let started = Instant::now();
        let result = tokio::select! {
            result = self.exporter.send(request, until) => result,
            () = self.stop.over(failing) => Err(SendError {
                error_type: "timeout",
                retry_after: None,
                message: "the process ended before the collector answered".to_owned(),
            }),
        };
        if let Err(error) = &result
            && let Some(pause) = error.retry_after
        {
            self.paused_until = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        }
        self.delivery.note(&result, items);
        self.exported.note(&result, items, started.elapsed());
    }
}
