//! The export thread: prepares the transports, keeps a loop per signal running, and ends within a deadline.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry::Context;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batches::{BatchLoop, watch_overflow};
use super::delivery::Delivery;
use super::exporter::{ExportTarget, Exporter};
use super::flush::MAX_DEADLINE;
use super::metrics::{MetricExport, MetricLoop};
use super::shutdown::{Shutdown, ShutdownLimit};
use super::supervision::supervised;
use crate::encode::{Batch, RequestEncoder};
use crate::log_target::LOG_TARGET;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::text::Redact;
use crate::transport::Sender;

const THREAD_NAME: &str = "telemetry";

/// Minimum time without drops after which an overflow counts as ended.
const MIN_OVERFLOW_SETTLED: Duration = Duration::from_secs(1);

thread_local! {
    static IS_EXPORT_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the current thread is an export thread.
///
/// A subscriber that exports log records must skip the events of this thread; otherwise a failing export
/// would cause further exports.
#[must_use]
pub fn is_export_thread() -> bool {
    IS_EXPORT_THREAD.get()
}

/// The signals to export.
#[derive(Clone, Debug)]
pub(crate) struct SignalExports {
    pub(crate) redact: Option<Redact>,
    pub(crate) traces: Option<QueuedExport>,
    pub(crate) logs: Option<QueuedExport>,
    pub(crate) metrics: Option<MetricExport>,
}

impl SignalExports {
    /// Returns the signals with a queue.
    pub(crate) fn queued(&self) -> impl Iterator<Item = &QueuedExport> {
        self.traces.iter().chain(&self.logs)
    }
}

/// The export of a signal with a queue.
#[derive(Clone, Debug)]
pub(crate) struct QueuedExport {
    pub(crate) target: ExportTarget,
    pub(crate) queue: Arc<Queue<Batch>>,
    pub(crate) encoder: RequestEncoder,
    /// Time between exports of batches that are not full.
    pub(crate) delay: Duration,
}

/// A handle to the running thread. Dropping it does not stop the thread.
#[derive(Debug)]
pub(crate) struct ExportThread {
    thread: JoinHandle<()>,
    shutdown: watch::Sender<Option<ShutdownLimit>>,
    /// In a mutex only to make the struct `Sync`.
    results: Mutex<mpsc::Receiver<(Signal, bool)>>,
    /// The signals that are exported.
    pub(crate) running: Vec<Signal>,
}

/// The result of the thread's start.
#[derive(Debug, Default)]
struct Started {
    running: Vec<Signal>,
    warnings: Vec<String>,
}

impl ExportThread {
    /// Starts the thread and waits until its transports are prepared, which needs no network. A signal whose
    /// transport cannot be prepared is disabled with a warning. Returns `None` if there is nothing to export.
    pub(crate) fn start(exports: SignalExports, warnings: &mut Vec<String>) -> Option<Self> {
        if exports.traces.is_none() && exports.logs.is_none() && exports.metrics.is_none() {
            return None;
        }
        let (shutdown, receiver) = Shutdown::new();
        let (start_sender, start) = mpsc::channel();
        let (result_sender, results) = mpsc::channel();
        let spawned = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || run(exports, &receiver, &start_sender, &result_sender));
        let started = spawned.and_then(|thread| {
            let panicked = || Err(io::Error::other("the thread panicked"));
            Ok((thread, start.recv().unwrap_or_else(|_| panicked())?))
        });
        match started {
            Ok((thread, started)) => {
                warnings.extend(started.warnings);
                (!started.running.is_empty()).then_some(Self {
                    thread,
                    shutdown,
                    results: Mutex::new(results),
                    running: started.running,
                })
            }
            Err(error) => {
                warnings.push(format!(
                    "nothing is exported: the export thread cannot be started: {error}"
                ));
                None
            }
        }
    }

    /// Exports everything recorded so far; returns the signals that were not delivered within `deadline`.
    pub(crate) fn finish(mut self, deadline: Duration) -> Vec<Signal> {
        let deadline = Instant::now() + deadline.min(MAX_DEADLINE);
        self.shutdown.send_replace(Some(ShutdownLimit::new(deadline)));
        let mut undelivered = Vec::new();
        while !self.running.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let results = self.results.get_mut().unwrap_or_else(PoisonError::into_inner);
            let Ok((signal, delivered)) = results.recv_timeout(left) else {
                undelivered.append(&mut self.running);
                return undelivered;
            };
            self.running.retain(|running| *running != signal);
            if !delivered {
                undelivered.push(signal);
            }
        }
        // All loops have ended, so the thread ends immediately.
        if self.thread.join().is_err() {
            tracing::error!(target: LOG_TARGET, "the export thread panicked while stopping");
        }
        undelivered
    }
}

/// Runs the loops of all signals on the export thread.
fn run(
    exports: SignalExports,
    shutdown: &Shutdown,
    start: &mpsc::Sender<io::Result<Started>>,
    results: &mpsc::Sender<(Signal, bool)>,
) {
    IS_EXPORT_THREAD.set(true);
    let mut started = Started::default();
    // The blocking threads of the runtime collect metrics and resolve host names.
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .thread_name(THREAD_NAME)
        .max_blocking_threads(4)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = start.send(Err(error));
            return;
        }
    };
    // Otherwise, exports would record spans, which would be exported in turn.
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    runtime.block_on(async {
        let mut loops = Loops {
            redact: exports.redact,
            set: JoinSet::new(),
            shutdown,
            results,
            started: &mut started,
        };
        for export in exports.queued() {
            loops.start_queued(export.clone());
        }
        if let Some(metrics) = exports.metrics {
            loops.start_metrics(metrics);
        }
        let mut set = loops.set;
        // Fails only if the starting thread is no longer waiting.
        let _ = start.send(Ok(started));
        let mut shutdown = shutdown.clone();
        tokio::select! {
            () = async { while set.join_next().await.is_some() {} } => {}
            () = shutdown.over(false) => {}
        }
    });
    // Does not wait for a blocked callback.
    runtime.shutdown_background();
}

/// Starts the loops of the signals.
struct Loops<'a> {
    redact: Option<Redact>,
    set: JoinSet<()>,
    shutdown: &'a Shutdown,
    results: &'a mpsc::Sender<(Signal, bool)>,
    started: &'a mut Started,
}

impl Loops<'_> {
    fn start_queued(&mut self, export: QueuedExport) {
        let QueuedExport {
            target,
            queue,
            encoder,
            delay,
        } = export;
        let signal = target.signal;
        let looped = Arc::clone(&queue);
        let running = self.start(target, move |exporter| {
            let encoder = encoder.clone();
            BatchLoop {
                queue: Arc::clone(&looped),
                delay,
                encode: move |batch: &Batch| encoder.encode(batch),
                exporter,
            }
            .run()
        });
        if running {
            let settled = delay.max(MIN_OVERFLOW_SETTLED);
            self.set
                .spawn(watch_overflow(signal, queue, settled, self.shutdown.clone()));
        }
    }

    fn start_metrics(&mut self, export: MetricExport) {
        self.start(export.target.clone(), move |exporter| {
            MetricLoop::new(export.clone(), exporter).run()
        });
    }

    /// Prepares the transport to `target` and starts the loop that `make` returns. Returns whether it was started.
    fn start<L>(
        &mut self,
        target: ExportTarget,
        make: impl Fn(Exporter<Sender>) -> L + Send + 'static,
    ) -> bool
    where
        L: Future<Output = bool> + Send + 'static,
    {
        let signal = target.signal;
        let warnings = &mut self.started.warnings;
        let mut first = match Sender::new(&target.destination, warnings) {
            Ok(sender) => Some(sender),
            Err(error) => {
                warnings.push(format!("{} are not exported: {error}", signal.name()));
                return false;
            }
        };
        self.started.running.push(signal);
        let (shutdown, results) = (self.shutdown.clone(), self.results.clone());
        let delivery = Arc::new(Delivery::new(signal, self.redact));
        let flushes = target.flushes.clone();
        self.set.spawn(async move {
            let delivered = supervised(signal, shutdown.clone(), move || {
                // The warnings were reported on the first start.
                let again = || Sender::new(&target.destination, &mut Vec::new()).ok();
                let sender = first.take().or_else(again)?;
                let (delivery, shutdown) = (Arc::clone(&delivery), shutdown.clone());
                Some(make(Exporter::new(&target, sender, delivery, shutdown)))
            })
            .await;
            flushes.close(signal, delivered);
            // Fails only after the deadline, when the receiver has been dropped.
            let _ = results.send((signal, delivered));
        });
        true
    }
}
