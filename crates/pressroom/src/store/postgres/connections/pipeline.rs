//! The pipeline for single statements: a few connections, each shared by all callers and kept open by its own
//! task. Statements fail at once when the server is known to be down, and within [`ANSWER_TIMEOUT`] when it
//! does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use telemetry::{ConnectionCounts, Statement};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    answer::Answer,
    connector::Connector,
    pipelined::PipelinedConnection,
    statement::{Params, record_retry},
    types::TypeCache,
};
use crate::store::postgres::error::StatementError;

/// Maximum wait for an answer, including the wait for a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Server-side time-out of a statement. Shorter than [`ANSWER_TIMEOUT`], so that the server cancels a
/// statement that waits for a lock before the statements pipelined behind it time out.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Maximum wait for a connection that is being opened.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A few shared connections, used in turn.
pub(super) struct Pipeline {
    slots: Vec<Slot>,
    next: AtomicUsize,
}

struct Slot {
    link: watch::Receiver<Link>,
    supervisor: AbortHandle,
}

#[derive(Clone)]
enum Link {
    /// The first attempt since the connection was lost is under way.
    Opening,
    Up(Arc<PipelinedConnection>),
    /// The last attempt failed for this reason; the next one follows after the back-off.
    Down(Arc<str>),
}

impl Pipeline {
    /// Opens `connections` connections, each with a supervisor task. Must be called within a Tokio runtime.
    /// With `types`, statements are not prepared on the connections.
    pub(super) fn new(
        name: &'static str,
        connector: &Connector,
        types: Option<&Arc<TypeCache>>,
        connections: usize,
    ) -> Self {
        let slots = (0..connections.max(1)).map(|number| {
            let (publish, link) = watch::channel(Link::Opening);
            let (connector, types) = (connector.clone(), types.cloned());
            let supervisor = tokio::spawn(supervise(name, number, connector, types, publish));
            Slot {
                link,
                supervisor: supervisor.abort_handle(),
            }
        });
        Self {
            slots: slots.collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Runs one statement. A read whose connection is lost is retried up to once per connection, because a
    /// restart of the server may have broken all of them unnoticed.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut answer = self.run_by(deadline, statement, params).await;
        for _ in &self.slots {
            match answer {
                Err(error) if error.allows_read_retry(statement) => {
                    record_retry(&error);
                    answer = self.run_by(deadline, statement, params).await;
                }
                answer => return answer,
            }
        }
        answer
    }

    /// Runs one statement, and retries it once if it loses a race against another transaction.
    async fn run_by(
        &self,
        deadline: Instant,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let session = timeout_at(deadline, self.session())
            .await
            .map_err(|_elapsed| StatementError::unavailable("no connection in time"))??;
        let answers = session.answers();
        let answer = timeout_at(deadline, async {
            match session.run(statement, params).await {
                Err(error) if error.lost_race() => {
                    record_retry(&error);
                    session.run(statement, params).await
                }
                answer => answer,
            }
        });
        answer.await.unwrap_or_else(|_elapsed| {
            if session.answers() == answers {
                session.unusable.notify_one();
            }
            Err(StatementError::unavailable("no answer in time"))
        })
    }

    /// Counts the connections that are up.
    pub(super) fn counts(&self) -> ConnectionCounts {
        let up = self
            .slots
            .iter()
            .filter(|slot| matches!(*slot.link.borrow(), Link::Up(_)))
            .count();
        ConnectionCounts {
            idle: 0,
            used: up as u64,
            max: self.slots.len() as u64,
            pending: (self.slots.len() - up) as u64,
        }
    }

    /// Returns the next connection that is up; waits only while one is being opened and none has failed.
    async fn session(&self) -> Result<Arc<PipelinedConnection>, StatementError> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut opening = None;
        let mut failure = None;
        for turn in 0..self.slots.len() {
            let slot = &self.slots[start.wrapping_add(turn) % self.slots.len()];
            match &*slot.link.borrow() {
                Link::Up(session) if !session.is_closed() => return Ok(Arc::clone(session)),
                Link::Up(_) | Link::Opening => opening = Some(slot),
                Link::Down(reason) => failure = Some(Arc::clone(reason)),
            }
        }
        match (failure, opening) {
            (None, Some(slot)) => slot.wait().await,
            (reason, _) => Err(StatementError::unavailable(reason.as_deref().unwrap_or_default())),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.supervisor.abort();
        }
    }
}

impl Slot {
    async fn wait(&self) -> Result<Arc<PipelinedConnection>, StatementError> {
        let mut link = self.link.clone();
        let decided = link.wait_for(|link| match link {
            Link::Opening => false,
            // The supervisor may not have noticed yet that the connection is closed.
            Link::Up(session) => !session.is_closed(),
            Link::Down(_) => true,
        });
        let Ok(Ok(link)) = timeout(CONNECTION_WAIT, decided).await else {
            return Err(StatementError::unavailable("no connection in time"));
        };
        match &*link {
            Link::Up(session) => Ok(Arc::clone(session)),
            Link::Down(reason) => Err(StatementError::unavailable(&**reason)),
            Link::Opening => Err(StatementError::unavailable("connecting")),
        }
    }
}

/// Keeps one connection open: logs once when it is lost and once when it is open again, and waits between
/// attempts with a back-off of up to [`MAX_BACKOFF`].
///
/// `pool` and `connection` name the connection in the log.
async fn supervise(
    pool: &'static str,
    connection: usize,
    connector: Connector,
    types: Option<Arc<TypeCache>>,
    publish: watch::Sender<Link>,
) {
    let mut backoff = FIRST_BACKOFF;
    let mut reported = false;
    loop {
        match connector.open_in_time().await {
            Ok((client, mut driver)) => {
                if reported {
                    telemetry::info!(pool, connection, "the database connection is open again");
                }
                let opened = Instant::now();
                let session = Arc::new(PipelinedConnection::new(client, types.clone()));
                publish.send_replace(Link::Up(Arc::clone(&session)));
                let reason = tokio::select! {
                    ended = &mut driver => end_of(ended),
                    () = session.unusable.notified() => "the server closed it or does not answer".to_owned(),
                };
                // Fails the callers that still wait for an answer.
                driver.abort();
                publish.send_replace(Link::Opening);
                telemetry::warn!(pool, connection, reason, "the database connection is lost");
                reported = true;
                if opened.elapsed() >= MAX_BACKOFF {
                    backoff = FIRST_BACKOFF;
                    continue;
                }
            }
            Err(reason) => {
                if !reported {
                    telemetry::warn!(pool, connection, reason, "the database cannot be reached");
                    reported = true;
                }
                publish.send_replace(Link::Down(reason.into()));
            }
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn end_of(driver: Result<Result<(), tokio_postgres::Error>, tokio::task::JoinError>) -> String {
    match driver {
        Ok(Ok(())) => "closed".to_owned(),
        Ok(Err(error)) => match error.code() {
            Some(state) => format!("SQLSTATE {}", state.code()),
            None => error.to_string(),
        },
        Err(_panicked) => "the connection's task ended early".to_owned(),
    }
}
