//! The thread itself: it makes the exporters, keeps a loop per signal running, and ends within a deadline.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batches::{Batching, watch_overflow};
use super::delivery::{Delivery, TARGET};
use super::frame::{Batch, Frame};
use super::measures::Exported;
use super::metrics::{Metering, Reader};
use super::outlet::{Exporter, Outlet};
use super::queue::Queue;
use super::stop::{End, Stop};
use super::supervision::supervised;
use super::tidy::Tidy;
use crate::config::{Batches, Destination, Signal};
use crate::logs::mark_export_thread;
use crate::otlp::Request;

const NAME: &str = "telemetry";

/// An overflow is over when nothing was dropped for at least this long.
const SHORTEST_QUIET: Duration = Duration::from_secs(1);

/// The longest end there is; longer ones would overflow the clock.
const LONGEST_END: Duration = Duration::from_secs(3_600);

/// The signals that are exported.
#[derive(Debug)]
pub(crate) struct Exports {
    pub(crate) resource: Resource,
    pub(crate) traces: Option<Queued>,
    pub(crate) logs: Option<Queued>,
    pub(crate) metrics: Option<Read>,
}

/// A signal whose entries are queued.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) queue: Arc<Queue<Batch>>,
    pub(crate) destination: Destination,
    pub(crate) batches: Batches,
    pub(crate) tidy: Tidy,
    pub(crate) exported: Arc<Exported>,
}

/// Metrics, which are read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) reader: Reader,
    pub(crate) destination: Destination,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) tidy: Tidy,
    pub(crate) exported: Arc<Exported>,
}

/// The hand on the running thread. Letting go of it does not stop the thread.
#[derive(Debug)]
pub(crate) struct ExportThread {
    thread: JoinHandle<()>,
    ask: watch::Sender<Option<End>>,
    results: mpsc::Receiver<(Signal, bool)>,
    running: Vec<Signal>,
}

/// How the start went.
#[derive(Debug, Default)]
struct Started {
    running: Vec<Signal>,
    warnings: Vec<String>,
}

impl ExportThread {
    /// Starts the thread and waits until it has made its exporters, which takes no network. A signal whose exporter
    /// cannot be made is left out with a warning. `None` when there is nothing to export.
    pub(crate) fn start(exports: Exports, warnings: &mut Vec<String>) -> Option<Self> {
        if exports.traces.is_none() && exports.logs.is_none() && exports.metrics.is_none() {
            return None;
        }
        let (ask, stop) = Stop::new();
        let (tell_start, start) = mpsc::channel();
        let (tell_results, results) = mpsc::channel();
        let spawned = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(exports, &stop, &tell_start, &tell_results));
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                warnings.push(format!("nothing is exported: there is no thread for it: {error}"));
                return None;
            }
        };
        let Started {
            running,
            warnings: more,
        } = start.recv().unwrap_or_else(|_| Started {
            running: Vec::new(),
            warnings: vec!["nothing is exported: the thread for it panicked".to_owned()],
        });
        warnings.extend(more);
        (!running.is_empty()).then_some(Self {
            thread,
            ask,
            results,
            running,
        })
    }

    /// Whether `signal` is exported.
    pub(crate) fn exports(&self, signal: Signal) -> bool {
        self.running.contains(&signal)
    }

    /// Has everything that is there exported and comes back when that is done or after `deadline`, whatever the
    /// collector does. Gives the signals that were not delivered.
    pub(crate) fn finish(mut self, deadline: Duration) -> Vec<Signal> {
        let deadline = Instant::now() + deadline.min(LONGEST_END);
        self.ask.send_replace(Some(End::by(deadline)));
        let mut undelivered = Vec::new();
        while !self.running.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((signal, delivered)) = self.results.recv_timeout(left) else {
                undelivered.append(&mut self.running);
                return undelivered;
            };
            self.running.retain(|running| *running != signal);
            if !delivered {
                undelivered.push(signal);
            }
        }
        // Its loops have ended, and it waits for nothing else.
        if self.thread.join().is_err() {
            tracing::error!(target: TARGET, "the telemetry thread panicked at its end");
        }
        undelivered
    }
}

/// The life of the thread.
fn run(
    exports: Exports,
    stop: &Stop,
    tell_start: &mpsc::Sender<Started>,
    tell_results: &mpsc::Sender<(Signal, bool)>,
) {
    mark_export_thread();
    let mut started = Started::default();
    // Threads of the pool collect metrics and look names up.
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .thread_name(NAME)
        .max_blocking_threads(4)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            started.warnings.push(format!(
                "nothing is exported: there is no runtime for it: {error}"
            ));
            let _ = tell_start.send(started);
            return;
        }
    };
    // What happens here is neither traced nor exported in turn.
    let _suppressed = Context::enter_telemetry_suppressed_scope();
    runtime.block_on(async {
        let mut loops = Loops {
            set: JoinSet::new(),
            stop,
            results: tell_results,
            started: &mut started,
        };
        let resource = exports.resource;
        if let Some(traces) = exports.traces {
            let frame = Frame::new(&resource, traces.tidy);
            let queue = Arc::clone(&traces.queue);
            loops.queued(Signal::Traces, traces, move |batch| {
                Request::Traces(frame.request(batch, &queue))
            });
        }
        if let Some(logs) = exports.logs {
            let frame = Frame::new(&resource, logs.tidy);
            let queue = Arc::clone(&logs.queue);
            loops.queued(Signal::Logs, logs, move |batch| {
                Request::Logs(frame.request(batch, &queue))
            });
        }
        if let Some(metrics) = exports.metrics {
            loops.read(metrics);
        }
        let mut set = loops.set;
        // Nobody waits when the set-up was given up.
        let _ = tell_start.send(started);
        let mut stop = stop.clone();
        tokio::select! {
            () = async { while set.join_next().await.is_some() {} } => {}
            () = stop.over(false) => {}
        }
    });
    // A callback that hangs is left behind.
    runtime.shutdown_background();
}

/// The loops that are being started.
struct Loops<'a> {
    set: JoinSet<()>,
    stop: &'a Stop,
    results: &'a mpsc::Sender<(Signal, bool)>,
    started: &'a mut Started,
}

impl Loops<'_> {
    fn queued<F>(&mut self, signal: Signal, queued: Queued, request: F)
    where
        F: Fn(Batch) -> Request + Clone + Send + 'static,
    {
        let Queued {
            queue,
            destination,
            batches,
            exported,
            ..
        } = queued;
        let (watched, stop) = (Arc::clone(&queue), self.stop.clone());
        let running = self.start(signal, destination, move |exporter, delivery, stop| {
            let outlet = Outlet::new(exporter, delivery, Arc::clone(&exported), batches.timeout, stop);
            Batching {
                queue: Arc::clone(&queue),
                delay: batches.delay,
                request: request.clone(),
                outlet,
            }
            .run()
        });
        if running {
            let quiet = batches.delay.max(SHORTEST_QUIET);
            self.set
                .spawn(watch_overflow(signal.name(), watched, quiet, stop));
        }
    }

    fn read(&mut self, read: Read) {
        let Read {
            reader,
            destination,
            interval,
            timeout,
            tidy,
            exported,
        } = read;
        self.start(Signal::Metrics, destination, move |exporter, delivery, stop| {
            let outlet = Outlet::new(exporter, delivery, Arc::clone(&exported), timeout, stop);
            Metering::new(reader.clone(), interval, tidy, outlet).run()
        });
    }

    /// Makes the first exporter of `signal` and starts its loop; says whether there is one.
    fn start<L>(
        &mut self,
        signal: Signal,
        destination: Destination,
        make: impl Fn(Exporter, Arc<Delivery>, Stop) -> L + Send + 'static,
    ) -> bool
    where
        L: Future<Output = bool> + Send + 'static,
    {
        let mut first = match Exporter::new(signal, &destination, &mut self.started.warnings) {
            Ok(Some(exporter)) => Some(exporter),
            Ok(None) => return false,
            Err(error) => {
                self.started
                    .warnings
                    .push(format!("{} are not exported: {error}", signal.name()));
                return false;
            }
        };
        self.started.running.push(signal);
        let (stop, results) = (self.stop.clone(), self.results.clone());
        let delivery = Arc::new(Delivery::new(signal.name()));
        self.set.spawn(async move {
            let delivered = supervised(signal.name(), stop.clone(), move || {
                // Its warnings are known from the first time.
                let again = || {
                    Exporter::new(signal, &destination, &mut Vec::new())
                        .ok()
                        .flatten()
                };
                let exporter = first.take().or_else(again)?;
                Some(make(exporter, Arc::clone(&delivery), stop.clone()))
            })
            .await;
            // Nobody waits when the deadline is over.
            let _ = results.send((signal, delivered));
        });
        true
    }
}
