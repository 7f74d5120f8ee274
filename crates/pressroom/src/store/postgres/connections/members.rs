//! The connections of a share: idle ones, borrowed ones, and the queue of callers.
//!
//! Connections are opened on demand, in tasks of their own: a handshake that takes longer than its caller waits
//! serves a later caller. Callers wait in a bounded queue, in order of arrival.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use telemetry::{ConnectionCounts, ConnectionTimes};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::error::SqlState;

use super::{
    connection::Connection,
    connector::{Connector, Driver, Settings},
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// Maximum time for an abandoned statement to end after its cancellation was requested.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Minimum age at which a connection to a read-only server is replaced, which looks up the server again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// Size and limits of a share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Name in metrics.
    pub(super) name: &'static str,
    /// Maximum number of connections.
    pub(super) size: usize,
    /// Maximum number of callers that wait for a connection; further ones fail immediately.
    pub(super) queue: usize,
    pub(super) settings: Settings,
}

/// The connections of a share.
pub(super) struct Members {
    share: Share,
    connector: Connector,
    /// Set when statements are not prepared on the connections.
    types: Option<Arc<TypeCache>>,
    times: ConnectionTimes,
    state: Mutex<State>,
}

/// An open connection and the task that drives it.
struct Member {
    connection: Box<Connection>,
    driver: Driver,
}

#[derive(Default)]
struct State {
    idle: Vec<Member>,
    /// Number of connections, including those that are being opened or closed.
    connections: usize,
    waiting: VecDeque<Waiter>,
}

/// Hands a connection to a waiting caller, or the reason none can be opened.
type Waiter = oneshot::Sender<Result<Lease, Arc<str>>>;

/// A borrowed connection, which returns to the pool only after a response. After a time-out, or when its
/// caller is dropped, the connection may still be busy and is closed instead.
pub(super) struct Lease {
    member: Option<Member>,
    pool: Arc<Members>,
    since: Instant,
}

impl Lease {
    fn new(pool: Arc<Members>, member: Member) -> Self {
        Self {
            member: Some(member),
            pool,
            since: Instant::now(),
        }
    }

    fn into_member(mut self) -> Option<Member> {
        self.member.take()
    }

    pub(super) fn give_back(mut self) {
        self.pool.times.used(self.since.elapsed());
        if let Some(member) = self.member.take() {
            self.pool.offer(member);
        }
    }

    /// Closes the connection, on which no response is outstanding.
    pub(super) fn discard(mut self) {
        self.pool.times.used(self.since.elapsed());
        drop(self.member.take());
        self.pool.closed();
    }

    /// Whether the connection can run further statements after this error.
    ///
    /// After a fail-over, the server may be a standby. A connection that has been open for a while is then
    /// closed, because its successor may reach the new primary.
    pub(super) fn is_usable_after(&self, error: &StatementError) -> bool {
        let is_outdated = error.is(&SqlState::READ_ONLY_SQL_TRANSACTION)
            && self.connection().opened.elapsed() >= LOOKUP_INTERVAL;
        !error.connection_lost && !is_outdated
    }

    pub(super) fn connection(&self) -> &Connection {
        let member = self.member.as_ref();
        &member
            .expect("only the methods that consume the lease take it")
            .connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(busy) = self.member.take() {
            self.pool.times.used(self.since.elapsed());
            Arc::clone(&self.pool).close(busy);
        }
    }
}

/// Response to a caller that asks for a connection.
enum Taken {
    Idle(Lease),
    Queued(oneshot::Receiver<Result<Lease, Arc<str>>>),
}

impl Members {
    pub(super) fn new(share: Share, connector: &Connector, types: Option<&Arc<TypeCache>>) -> Arc<Self> {
        Arc::new(Self {
            share,
            connector: connector.with(share.settings).named(share.name),
            types: types.cloned(),
            times: ConnectionTimes::new(share.name),
            state: Mutex::default(),
        })
    }

    /// Borrows a connection within `limit`, in order of arrival.
    pub(super) async fn borrow(self: &Arc<Self>, limit: Instant) -> Result<Lease> {
        let asked = Instant::now();
        let lease = match self.take()? {
            Taken::Idle(lease) => lease,
            Taken::Queued(lease) => match timeout_at(limit, lease).await {
                Ok(Ok(Ok(lease))) => lease,
                Ok(Ok(Err(reason))) => return Err(StatementError::unavailable(&*reason)),
                Ok(Err(_closed)) => return Err(StatementError::unavailable("the pool was closed")),
                Err(_elapsed) => {
                    self.timed_out();
                    return Err(StatementError::unavailable(
                        "no connection became available in time",
                    ));
                }
            },
        };
        self.times.waited(asked.elapsed());
        Ok(lease)
    }

    /// Counts a call that did not get a connection or a lock in time.
    pub(super) fn timed_out(&self) {
        self.times.timed_out();
    }

    /// Opens a connection before the first caller needs it.
    pub(super) fn open_early(self: &Arc<Self>) {
        self.open(&mut self.state());
    }

    /// Closes the idle connections, so that the next callers look up the server again.
    pub(super) fn reconnect(&self) {
        let mut state = self.state();
        state.connections -= state.idle.len();
        state.idle.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle connection or joins the queue, and opens another connection if the pool may have more.
    fn take(self: &Arc<Self>) -> Result<Taken> {
        let mut state = self.state();
        while let Some(member) = state.idle.pop() {
            if !member.connection.is_closed() {
                return Ok(Taken::Idle(Lease::new(Arc::clone(self), member)));
            }
            state.connections -= 1;
        }
        if state.waiting.len() >= self.share.queue {
            state.forget_departed();
        }
        if state.waiting.len() >= self.share.queue {
            self.timed_out();
            return Err(StatementError::unavailable(
                "too many callers are waiting for a connection",
            ));
        }
        let (waiter, lease) = oneshot::channel();
        state.waiting.push_back(waiter);
        if state.connections < self.share.size {
            self.open(&mut state);
        }
        Ok(Taken::Queued(lease))
    }

    /// Opens a connection in a task.
    fn open(self: &Arc<Self>, state: &mut State) {
        state.connections += 1;
        let members = Arc::clone(self);
        tokio::spawn(async move {
            match members.connector.open_in_time().await {
                Ok((client, driver)) => {
                    let connection = Box::new(Connection::new(client, members.types.clone()));
                    members.offer(Member { connection, driver });
                }
                Err(reason) => members.failed(&reason.into()),
            }
        });
    }

    /// Hands a connection to the caller that has waited longest, or keeps it if none waits.
    fn offer(self: &Arc<Self>, member: Member) {
        if member.connection.is_closed() {
            return self.closed();
        }
        let mut state = self.state();
        let mut lease = Lease::new(Arc::clone(self), member);
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(lease)) {
                Ok(()) => return,
                Err(Ok(returned)) => lease = returned,
                Err(Err(_reason)) => return,
            }
        }
        state.idle.extend(lease.into_member());
    }

    /// Closes a connection whose caller has left or received no response. The connection counts until the
    /// server has ended its statement, so that abandoned statements do not add up.
    fn close(self: Arc<Self>, member: Member) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let Member {
                connection,
                mut driver,
            } = member;
            let cancel = connection.client.cancel_token();
            // The driver ends after the last response.
            drop(connection);
            let ended = async {
                self.connector.cancel(cancel).await;
                let _ended = (&mut driver).await;
            };
            if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
                driver.abort();
            }
            self.closed();
        });
    }

    /// Replaces a closed connection if callers wait.
    fn closed(self: &Arc<Self>) {
        let mut state = self.state();
        state.connections -= 1;
        state.forget_departed();
        if !state.waiting.is_empty() {
            self.open(&mut state);
        }
    }

    /// Fails the waiting callers, unless another connection may serve them.
    fn failed(&self, reason: &Arc<str>) {
        let mut state = self.state();
        state.connections -= 1;
        if state.connections == 0 {
            for waiter in state.waiting.drain(..) {
                let _departed = waiter.send(Err(Arc::clone(reason)));
            }
        }
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let mut state = self.state();
        state.forget_departed();
        ConnectionCounts {
            idle: state.idle.len() as u64,
            used: state.connections.saturating_sub(state.idle.len()) as u64,
            max: self.share.size as u64,
            pending: state.waiting.len() as u64,
        }
    }
}

impl State {
    /// Removes callers that no longer wait.
    fn forget_departed(&mut self) {
        self.waiting.retain(|waiter| !waiter.is_closed());
    }
}
