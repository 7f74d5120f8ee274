//! Sends what was received on to a backend: a bounded queue on disk, tokens by OAuth2 client credentials, OTLP over HTTP.
//! What was accepted is delivered at least once, by the next process if need be; what finds no place in the queue is
//! counted. Nothing here makes spans, and what it logs is bounded, because that may arrive here again.

mod client;
mod content;
mod exchange;
mod outage;
mod pace;
mod progress;
mod queue;
mod sender;
#[cfg(test)]
mod tests;
mod token;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use url::Url;

pub(crate) use self::progress::Status;
pub use self::queue::FolderError;
use self::{
    exchange::Exchange,
    pace::Pace,
    progress::Progress,
    queue::{Budget, Folder, HEADER, Queue},
    sender::{Sender, sync, sync_regularly},
};
use crate::export::{Export, Signal};

/// Every signal has a queue and a sender of its own.
const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

/// How long the disk may take for what is left when the time for sending is over.
const DISK_TIME: Duration = Duration::from_secs(2);

/// A text that is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where to forward to.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// The backend's OTLP/HTTP endpoint; `/v1/traces` and the like are appended. `https`, unless it is on this machine.
    pub endpoint: Url,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Tokens for every request, where the backend wants them.
    pub credentials: Option<Credentials>,
    /// The value of `deployment.environment.name` (and `deployment.environment`), when it is to be set.
    pub environment: Option<String>,
    /// The folder of the queue, of one process at a time; made when it is not there.
    pub queue: PathBuf,
    /// How many bytes the queue may take on disk.
    pub queue_limit: u64,
}

/// OAuth2 client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `https`, unless it is on this machine.
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: Secret,
    /// The `audience` parameter of the token request.
    pub audience: Option<String>,
}

/// Why nothing can be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the {purpose} for forwarding must be https: only to this machine http is safe")]
    NotHttps { purpose: &'static str },
    #[error("the {purpose} for forwarding must not contain a user name or password")]
    SecretInUrl { purpose: &'static str },
    #[error("the header {name:?} for forwarding has a name or a value that HTTP does not allow")]
    Header { name: String },
    #[error("no HTTP client for forwarding: {0}")]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Takes what is to be forwarded. When the last clone is dropped it stops, and leaves the rest on disk.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: String,
    environment: Option<String>,
    queues: Arc<[Arc<Queue>]>,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    deadline: watch::Sender<Option<Instant>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Forwarder {
    /// Opens the queue and begins to send what is in it already. Called in a Tokio runtime, which sends.
    ///
    /// # Errors
    /// An address or header that cannot be used, or a folder that another process uses or that cannot be written.
    pub(crate) fn start(forwarding: &Forwarding) -> Result<Self, StartError> {
        Self::start_with(forwarding, Pace::default())
    }

    fn start_with(forwarding: &Forwarding, pace: Pace) -> Result<Self, StartError> {
        let exchange = Arc::new(Exchange::new(forwarding, &pace)?);
        let folder = Arc::new(Folder::lock(&forwarding.queue)?);
        let budget = Arc::new(Budget::new(forwarding.queue_limit));
        let queues: Arc<[Arc<Queue>]> = SIGNALS
            .into_iter()
            .map(|signal| Queue::open(folder.clone(), signal, budget.clone()).map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(|source| FolderError::Io {
                path: forwarding.queue.clone(),
                source,
            })?;
        let progress = Arc::new(Progress::default());
        let (deadline, _) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for queue in queues.iter() {
            let sender = Sender {
                signal: queue.signal(),
                queue: queue.clone(),
                exchange: exchange.clone(),
                progress: progress.clone(),
                pace,
                deadline: deadline.subscribe(),
            };
            tasks.spawn(sender.run());
        }
        tasks.spawn(sync_regularly(
            queues.clone(),
            progress.clone(),
            pace.sync_interval,
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

    /// Queues `export`, without waiting for the backend; what finds no place is counted and logged. Writes a file, so it
    /// is not for async code.
    pub(crate) fn accept(&self, export: &Export) {
        let environment = self.0.environment.as_deref();
        let Some(content) = content::content(export, environment, HEADER) else {
            return;
        };
        let signal = export.signal();
        match self.0.queues[signal as usize].append(content.request, content.items) {
            Ok(()) => self.0.progress.queued(signal),
            Err(error) => self.0.progress.not_queued(signal, &error),
        }
    }

    /// Sends what is queued until that is done or `within` has passed, and puts the rest on the disk for the next
    /// process. What is accepted after this is for that one too.
    pub(crate) async fn finish(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.0.deadline.send_replace(Some(deadline));
        let mut tasks = self.0.tasks.lock().await;
        let ended = async {
            while tasks.join_next().await.is_some() {}
            sync(&self.0.queues, &self.0.progress).await;
        };
        // They end by themselves at the deadline, unless the disk keeps them.
        if timeout_at(deadline + DISK_TIME, ended).await.is_err() {
            tasks.abort_all();
            telemetry::warn!("the disk takes too long to write the forwarding queue");
        }
        let bytes = self.queued_bytes();
        if bytes > 0 {
            telemetry::info!(
                bytes,
                "telemetry that is not forwarded yet waits on disk for the next start"
            );
        }
    }

    pub(crate) fn status(&self) -> Status {
        let shared = &self.0;
        shared.progress.status(
            shared.endpoint.clone(),
            self.queued_bytes(),
            shared.budget.limit(),
        )
    }

    fn queued_bytes(&self) -> u64 {
        self.0.queues.iter().map(|queue| queue.pending()).sum()
    }
}

/// A query may be a secret.
fn shown(endpoint: &Url) -> String {
    let mut endpoint = endpoint.clone();
    endpoint.set_query(None);
    endpoint.set_fragment(None);
    endpoint.into()
}
