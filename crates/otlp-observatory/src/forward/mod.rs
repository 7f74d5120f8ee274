//! Forwards received telemetry to a backend with OTLP over HTTP, through a bounded queue on disk, and with OAuth2
//! tokens if the backend requires them.
//!
//! Queued exports are delivered at least once, if necessary by the next process; exports that cannot be queued are
//! counted. This module creates no spans and bounds its logging, because its own telemetry may be received and forwarded
//! again.

mod back_off;
mod client;
mod config;
mod content;
mod exchange;
mod failures;
mod progress;
mod queue;
mod sender;
#[cfg(test)]
mod tests;
mod timing;
mod token;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use url::{Position, Url};

pub(crate) use self::progress::Status;
pub use self::{
    config::{Credentials, Forwarding, Secret, StartError},
    queue::FolderError,
};
use self::{
    exchange::Exchange,
    progress::Progress,
    queue::{Budget, DiskQueue, Folder, HEADER},
    sender::{Sender, sync, sync_regularly},
    timing::Timing,
};
use crate::export::{Export, Signal};

/// Grace period for the last writes to disk after the deadline for sending.
const DISK_GRACE: Duration = Duration::from_secs(2);

/// Queues exports and sends them in the background.
///
/// When the last clone is dropped, sending stops, and queued exports stay on disk.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Endpoint as [`shown`] in the status.
    endpoint: String,
    environment: Option<String>,
    queues: Arc<[Arc<DiskQueue>]>,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    deadline: watch::Sender<Option<Instant>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Forwarder {
    /// Opens the queue and starts sending its contents, on the current Tokio runtime.
    ///
    /// # Errors
    /// Fails if an address or a header is not allowed, or if the folder cannot be written or is used by another process.
    pub(crate) fn start(forwarding: &Forwarding) -> Result<Self, StartError> {
        Self::start_with(forwarding, Timing::default())
    }

    fn start_with(forwarding: &Forwarding, timing: Timing) -> Result<Self, StartError> {
        let exchange = Arc::new(Exchange::new(forwarding, &timing)?);
        let folder = Arc::new(Folder::lock(&forwarding.queue)?);
        let budget = Arc::new(Budget::new(forwarding.queue_limit));
        let queues: Arc<[Arc<DiskQueue>]> = Signal::ALL
            .into_iter()
            .map(|signal| DiskQueue::open(folder.clone(), signal, budget.clone()).map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(|source| FolderError::Io {
                path: forwarding.queue.clone(),
                source,
            })?;
        let progress = Arc::new(Progress::new());
        let (deadline, _) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for queue in queues.iter() {
            let sender = Sender {
                queue: queue.clone(),
                exchange: exchange.clone(),
                progress: progress.clone(),
                timing,
                deadline: deadline.subscribe(),
                back_off: timing.back_off(),
            };
            tasks.spawn(sender.run());
        }
        tasks.spawn(sync_regularly(
            queues.clone(),
            progress.clone(),
            timing.sync_interval,
            deadline.subscribe(),
        ));
        Ok(Self(Arc::new(Shared {
            endpoint: shown(&forwarding.endpoint),
            environment: forwarding.environment.clone(),
            queues,
            budget,
            progress,
            deadline,
            tasks: Mutex::new(tasks),
        })))
    }

    /// Queues `export` without waiting for the backend. An export that cannot be queued is counted and
    /// logged.
    ///
    /// Writes to a file, so it must not be called from async code.
    pub(crate) fn accept(&self, export: &Export) {
        let environment = self.0.environment.as_deref();
        let Some(content) = content::content(export, environment, HEADER) else {
            return;
        };
        let signal = export.signal();
        let progress = self.0.progress.of(signal);
        match self.0.queues[signal as usize].append(content.request, content.items) {
            Ok(()) => progress.queueing.succeeded(),
            Err(error) => progress.not_queued(&error),
        }
    }

    /// Sends queued exports for at most `within`, and leaves the rest on disk for the next process.
    ///
    /// Exports that are accepted later also remain on disk.
    pub(crate) async fn finish(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.0.deadline.send_replace(Some(deadline));
        let mut tasks = self.0.tasks.lock().await;
        let finished = async {
            while tasks.join_next().await.is_some() {}
            sync(&self.0.queues, &self.0.progress).await;
        };
        // The tasks end at the deadline, unless a disk operation takes longer.
        if timeout_at(deadline + DISK_GRACE, finished).await.is_err() {
            tasks.abort_all();
            telemetry::warn!(
                "writing the forwarding queue to disk takes too long; its last requests may be lost"
            );
        }
        let bytes = self.queued_bytes();
        if bytes > 0 {
            telemetry::info!(
                queue.size = bytes,
                "undelivered telemetry is kept on disk until the next start"
            );
        }
    }

    pub(crate) fn status(&self) -> Status {
        let shared = &self.0;
        shared
            .progress
            .status(shared.endpoint.clone(), self.queued_bytes(), shared.budget.limit)
    }

    fn queued_bytes(&self) -> u64 {
        self.0.queues.iter().map(|queue| queue.pending()).sum()
    }
}

/// Returns an endpoint without its user, path and query, which may contain a secret.
fn shown(endpoint: &Url) -> String {
    let address = &endpoint[Position::BeforeHost..Position::AfterPort];
    let path = if endpoint.path() == "/" { "/" } else { "/***" };
    format!("{}://{address}{path}", endpoint.scheme())
}
