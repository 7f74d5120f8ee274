//! The pipeline for reads by key, which neither scan nor wait for row locks: a few connections, each shared
//! by all callers and kept open by its own task. Statements fail immediately while the server is known to be
//! down, and within [`RESPONSE_TIMEOUT`] when it does not respond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use celeriac::RetryDelay;
use telemetry::{ConnectionCounts, ConnectionTimes, Statement};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    connection::Connection,
    connector::{Connector, Settings},
    result::StatementResult,
    retry::retry_reads,
    statement::Params,
    types::TypeCache,
};
use crate::{
    store::postgres::error::{Result, StatementError},
    threads,
};

/// Maximum wait for a response, including the wait for a connection.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Settings of the pipeline's connections.
///
/// The statement time-out is shorter than [`RESPONSE_TIMEOUT`], so that the statements pipelined behind a
/// slow one do not time out too. The lock time-out is short because the statements behind one that waits for
/// a lock wait as well. Reads by key wait only for locks on whole tables, such as those of `ALTER TABLE`.
pub(super) const SETTINGS: Settings = Settings {
    statement_timeout: Duration::from_millis(1_500),
    lock_timeout: Duration::from_millis(25),
    scans: false,
};
/// Maximum wait for a connection that is being opened.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);

/// Back-off between attempts to connect, which are unlimited.
const BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: Duration::from_millis(50),
    longest: MAX_BACK_OFF,
    jitter: true,
};
const MAX_BACK_OFF: Duration = Duration::from_secs(1);

/// A few shared connections, used in rotation.
pub(super) struct Pipeline {
    links: Vec<watch::Receiver<Link>>,
    next: AtomicUsize,
    /// Number of callers that wait for a connection that is being opened.
    waiting: AtomicUsize,
    times: ConnectionTimes,
    /// Tasks that keep the connections open, aborted when the pipeline is dropped.
    _supervisors: JoinSet<()>,
}

/// State of one connection.
enum Link {
    /// The first attempt, at the start or after the connection was lost, is in progress.
    Opening,
    Up(Arc<Connection>),
    /// The last attempt failed for this reason; another one follows after the back-off.
    Down(Arc<str>),
}

impl Pipeline {
    /// Opens `connections` connections, each with a supervisor task on one of the runtimes, by default the current one.
    /// Must be called within a Tokio runtime. With `types`, statements are not prepared on the connections.
    pub(super) fn new(
        name: &'static str,
        connector: &Connector,
        types: Option<&Arc<TypeCache>>,
        connections: usize,
        runtimes: &[Handle],
    ) -> Self {
        let mut supervisors = JoinSet::new();
        let current = [Handle::current()];
        let runtimes = if runtimes.is_empty() { &current } else { runtimes };
        let runtimes = runtimes.iter().cycle().enumerate();
        let links = runtimes.take(connections.max(1)).map(|(number, runtime)| {
            let (publish, link) = watch::channel(Link::Opening);
            let supervisor = supervise(name, number, connector.clone(), types.cloned(), publish);
            supervisors.spawn_on(supervisor, runtime);
            link
        });
        Self {
            links: links.collect(),
            next: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            times: ConnectionTimes::new(name),
            _supervisors: supervisors,
        }
    }

    /// Runs one statement. A read whose connection is lost is retried.
    pub(super) async fn run(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let run = || self.run_by(deadline, statement, params);
        retry_reads(statement, self.links.len(), run).await
    }

    async fn run_by(
        &self,
        deadline: Instant,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let connection = self.connection(deadline).await?;
        let responses = connection.responses();
        let result = timeout_at(deadline, connection.run(statement, params)).await;
        result.unwrap_or_else(|_elapsed| {
            if connection.responses() == responses {
                connection.unusable.notify_one();
            }
            Err(StatementError::unavailable("no response in time"))
        })
    }

    /// Counts the connections that are up.
    pub(super) fn counts(&self) -> ConnectionCounts {
        let is_up = |link: &&watch::Receiver<Link>| matches!(*link.borrow(), Link::Up(_));
        let up = self.links.iter().filter(is_up).count();
        ConnectionCounts {
            idle: 0,
            used: up as u64,
            max: self.links.len() as u64,
            pending: self.waiting.load(Ordering::Relaxed) as u64,
        }
    }

    /// Replaces all connections, looking up the server again. Reads in progress are retried.
    pub(super) fn reconnect(&self) {
        for link in &self.links {
            if let Link::Up(connection) = &*link.borrow() {
                connection.unusable.notify_one();
            }
        }
    }

    /// Returns the connection of the current thread, or the next one, if it is up. Waits only while one is being opened
    /// and none has failed.
    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>> {
        let start = threads::current().unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let mut opening = None;
        let mut failure = None;
        for turn in 0..self.links.len() {
            let link = &self.links[start.wrapping_add(turn) % self.links.len()];
            match &*link.borrow() {
                Link::Up(connection) if !connection.is_closed() => return Ok(Arc::clone(connection)),
                Link::Up(_) | Link::Opening => opening = Some(link),
                Link::Down(reason) => failure = Some(Arc::clone(reason)),
            }
        }
        match (failure, opening) {
            (None, Some(link)) => {
                let _waiting = Waiting::among(&self.waiting);
                let opened = opened(link.clone(), deadline.min(Instant::now() + CONNECTION_WAIT)).await;
                opened.unwrap_or_else(|| {
                    self.times.timed_out();
                    Err(StatementError::unavailable("no connection in time"))
                })
            }
            (reason, _) => Err(StatementError::unavailable(reason.as_deref().unwrap_or_default())),
        }
    }
}

/// A caller that waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until a connection is up or cannot be opened. Returns `None` after the deadline.
async fn opened(mut link: watch::Receiver<Link>, deadline: Instant) -> Option<Result<Arc<Connection>>> {
    let decided = link.wait_for(|link| match link {
        Link::Opening => false,
        // The supervisor may not have noticed yet that the connection is closed.
        Link::Up(connection) => !connection.is_closed(),
        Link::Down(_) => true,
    });
    if let Ok(Ok(link)) = timeout_at(deadline, decided).await {
        match &*link {
            Link::Up(connection) => return Some(Ok(Arc::clone(connection))),
            Link::Down(reason) => return Some(Err(StatementError::unavailable(&**reason))),
            Link::Opening => {}
        }
    }
    None
}

/// Keeps one connection open. [`Connections`](super::Connections) logs outages, for all connections together.
///
/// `pool` and `connection` name the connection in the log.
async fn supervise(
    pool: &'static str,
    connection: usize,
    connector: Connector,
    types: Option<Arc<TypeCache>>,
    publish: watch::Sender<Link>,
) {
    let mut failures = 0;
    let mut reported = false;
    loop {
        match connector.open_in_time().await {
            Ok((client, mut driver)) => {
                if reported {
                    telemetry::debug!(
                        db.client.connection.pool.name = pool,
                        db.connection.index = connection,
                        "the database connection is open again"
                    );
                }
                let opened = Instant::now();
                let opened_connection = Arc::new(Connection::new(client, types.clone()));
                publish.send_replace(Link::Up(Arc::clone(&opened_connection)));
                let reason = tokio::select! {
                    ended = &mut driver => closing_reason(ended),
                    () = opened_connection.unusable.notified() => {
                        "the server closed it, does not respond, or was replaced".to_owned()
                    }
                };
                // Fails all statements that are waiting for a response.
                driver.abort();
                publish.send_replace(Link::Opening);
                telemetry::debug!(
                    db.client.connection.pool.name = pool,
                    db.connection.index = connection,
                    reason,
                    "lost the database connection; reconnecting"
                );
                reported = true;
                if opened.elapsed() >= MAX_BACK_OFF {
                    failures = 0;
                    continue;
                }
            }
            Err(reason) => {
                if !reported {
                    telemetry::debug!(
                        db.client.connection.pool.name = pool,
                        db.connection.index = connection,
                        reason,
                        "the database cannot be reached; retrying"
                    );
                    reported = true;
                }
                publish.send_replace(Link::Down(reason.into()));
            }
        }
        sleep(BACK_OFF.after(failures)).await;
        failures += 1;
    }
}

/// Describes why a connection's driver ended.
fn closing_reason(driver: Result<Result<(), tokio_postgres::Error>, tokio::task::JoinError>) -> String {
    match driver {
        Ok(Ok(())) => "closed".to_owned(),
        Ok(Err(error)) => match error.code() {
            Some(state) => format!("SQLSTATE {}", state.code()),
            None => error.to_string(),
        },
        Err(_panicked) => "the connection's task ended early".to_owned(),
    }
}
