//! The lane for single statements: a few connections, each shared by all callers and kept open by
//! its own task. A dead server is answered for at once, a silent one within [`ANSWER_TIMEOUT`].

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
    super::error::StatementError, Params, again, answer::Answer, connector::Connector, session::Session,
    signature::Signatures,
};

/// How long a caller waits for an answer, waiting for a connection included.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_800);
/// How long the server works on a statement: less, so that one that waits for a lock is cancelled
/// there rather than left to hold up those pipelined behind it.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a caller waits for a connection that is being opened.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);

const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// A few shared connections, used in turn.
pub(super) struct Lane {
    slots: Vec<Slot>,
    next: AtomicUsize,
}

struct Slot {
    link: watch::Receiver<Link>,
    supervisor: AbortHandle,
}

#[derive(Clone)]
enum Link {
    /// The first attempt since it was lost is under way.
    Opening,
    Up(Arc<Session>),
    /// The last attempt failed, for this reason; the next one comes after a pause.
    Down(Arc<str>),
}

/// What a slot's connection is opened with, and what it is called in the log.
struct Opening {
    pool: &'static str,
    connection: usize,
    connector: Connector,
    signatures: Option<Arc<Signatures>>,
}

impl Lane {
    /// Starts `connections` supervisors, which call it `name` in the log; must be called inside a Tokio
    /// runtime. With `signatures`, statements are not prepared on the connections.
    pub(super) fn new(
        name: &'static str,
        connector: &Connector,
        signatures: Option<&Arc<Signatures>>,
        connections: usize,
    ) -> Self {
        let slots = (0..connections.max(1)).map(|number| {
            let (publish, link) = watch::channel(Link::Opening);
            let open = Opening {
                pool: name,
                connection: number,
                connector: connector.clone(),
                signatures: signatures.cloned(),
            };
            let supervisor = tokio::spawn(supervise(open, publish));
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

    /// Runs one statement; a read whose connection is lost, again over another one. After a restart
    /// that other one may be as dead and not yet known to be, so each has its turn.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut answer = self.run_by(deadline, statement, params).await;
        for _ in &self.slots {
            match answer {
                Err(error) if error.may_be_read_again(statement) => {
                    again(&error);
                    answer = self.run_by(deadline, statement, params).await;
                }
                answer => return answer,
            }
        }
        answer
    }

    /// Runs one statement, once more when another transaction got in its way.
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
                Err(error) if error.lost_to_another() => {
                    again(&error);
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

    /// How many connections are up.
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

    /// The next connection that is up; waits only while one is being opened and none has failed.
    async fn session(&self) -> Result<Arc<Session>, StatementError> {
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

impl Drop for Lane {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.supervisor.abort();
        }
    }
}

impl Slot {
    async fn wait(&self) -> Result<Arc<Session>, StatementError> {
        let mut link = self.link.clone();
        let decided = link.wait_for(|link| match link {
            Link::Opening => false,
            // Its end was seen here before its supervisor saw it.
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

/// Keeps one connection open for ever: logs once when it is lost and once when it is back, and
/// waits between attempts, longer each time up to [`LONGEST_BACK_OFF`].
async fn supervise(slot: Opening, publish: watch::Sender<Link>) {
    let Opening {
        pool,
        connection,
        connector,
        signatures,
    } = slot;
    let mut back_off = FIRST_BACK_OFF;
    let mut reported = false;
    loop {
        match connector.open_in_time().await {
            Ok((client, mut driver)) => {
                if reported {
                    telemetry::info!(pool, connection, "the database connection is back");
                }
                let opened = Instant::now();
                let session = Arc::new(Session::new(client, signatures.clone()));
                publish.send_replace(Link::Up(Arc::clone(&session)));
                let reason = tokio::select! {
                    ended = &mut driver => end_of(ended),
                    () = session.unusable.notified() => "the server ended it or went silent".to_owned(),
                };
                // Whoever still waits for an answer learns now that none will come.
                driver.abort();
                publish.send_replace(Link::Opening);
                telemetry::warn!(pool, connection, reason, "the database connection is lost");
                reported = true;
                if opened.elapsed() >= LONGEST_BACK_OFF {
                    back_off = FIRST_BACK_OFF;
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
        sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

fn end_of(driver: Result<Result<(), tokio_postgres::Error>, tokio::task::JoinError>) -> String {
    match driver {
        Ok(Ok(())) => "closed".to_owned(),
        Ok(Err(error)) => match error.code() {
            Some(state) => format!("SQLSTATE {}", state.code()),
            None => error.to_string(),
        },
        Err(_panicked) => "its task ended early".to_owned(),
    }
}
