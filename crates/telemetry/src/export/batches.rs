//! The loop of a signal that is queued: spans and log records. A batch leaves when it is full or when the delay is over,
//! whichever is first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::delivery::TARGET;
use super::outlet::{Export, Outlet};
use super::queue::Queue;
use super::stop::Stop;
use crate::otlp::Request;

/// What moves one signal's batches from the queue to the outlet.
#[derive(Debug)]
pub(crate) struct Batching<T, E, F> {
    pub(crate) queue: Arc<Queue<T>>,
    /// Between two exports of batches that are not full.
    pub(crate) delay: Duration,
    /// Empties a batch into a request.
    pub(crate) encode: F,
    pub(crate) outlet: Outlet<E>,
}

impl<T, E, F> Batching<T, E, F>
where
    E: Export,
    F: FnMut(&mut Vec<T>) -> Request,
{
    /// Runs until it is stopped; says whether everything was delivered.
    pub(crate) async fn run(mut self) -> bool {
        let mut stop = self.outlet.stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stop.asked() => break,
                () = self.queue.ready() => {
                    while stop.end().is_none() && self.outlet.open().await
                        && let Some(batch) = self.queue.take_ready()
                    {
                        self.export(batch).await;
                    }
                }
                () = sleep(self.delay) => {
                    while stop.end().is_none() && self.outlet.open().await
                        && let Some(batch) = self.queue.take()
                    {
                        self.export(batch).await;
                    }
                }
            }
        }
        self.finish().await
    }

    /// Exports what is left, until the end at the latest.
    async fn finish(mut self) -> bool {
        self.queue.close();
        while self.queue.len() > 0 {
            if self.outlet.is_over() || !self.outlet.open().await {
                return false;
            }
            if let Some(batch) = self.queue.take() {
                self.export(batch).await;
            }
        }
        !self.outlet.delivery.is_failing()
    }

    async fn export(&mut self, mut batch: Vec<T>) {
        let items = batch.len() as u64;
        let request = (self.encode)(&mut batch);
        self.queue.recycle(batch);
        let until = self.outlet.until();
        self.outlet.send(&request, items, until).await;
    }
}

/// Tells the log when `queue` begins to overflow and, once nothing was dropped for as long as `quiet`, that it is over.
pub(crate) async fn watch_overflow<T>(
    signal: &'static str,
    queue: Arc<Queue<T>>,
    quiet: Duration,
    mut stop: Stop,
) {
    loop {
        tokio::select! {
            () = queue.overflow() => {}
            _ = stop.asked() => return,
        }
        tracing::warn!(
            target: TARGET,
            signal,
            capacity = queue.capacity(),
            "more telemetry is made than delivered; what does not fit into the queue is dropped"
        );
        let mut stopped = false;
        let dropped = loop {
            let seen = queue.counts().dropped;
            tokio::select! {
                _ = stop.asked() => stopped = true,
                () = sleep(quiet) => {}
            }
            if let Some(dropped) = queue.end_overflow(if stopped { queue.counts().dropped } else { seen }) {
                break dropped;
            }
        };
        tracing::info!(target: TARGET, signal, dropped, "the telemetry queue has room again");
        if stopped {
            return;
        }
    }
}
