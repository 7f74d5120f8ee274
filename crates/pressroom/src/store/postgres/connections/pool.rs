//! A share of the connections, each with one caller at a time, for statements that may wait or take long.
//!
//! Connections are opened on demand, in tasks of their own: a handshake that outlasts its caller's patience
//! serves a later caller. Callers wait in a bounded queue, in order of arrival.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use telemetry::{ConnectionCounts, ConnectionTimes, Database, Statement};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use super::{
    connection::Connection,
    connector::{Connector, Driver, Timeouts},
    lease::{Lease, Step},
    result::StatementResult,
    retry::{record_retry, retry_reads},
    statement::Params,
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// Maximum wait for a connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum wait for the first response.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Maximum time for an abandoned statement to end after its cancellation was requested.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Size and limits of a share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Name in metrics.
    pub(super) name: &'static str,
    /// Maximum number of connections.
    pub(super) size: usize,
    /// Maximum number of callers that wait for a connection; further ones fail immediately.
    pub(super) queue: usize,
    pub(super) timeouts: Timeouts,
}

/// Connections that have one user at a time.
pub(super) struct Pool(Arc<Shared>);

/// The part of a pool that its tasks and leases share.
pub(super) struct Shared {
    share: Share,
    connector: Connector,
    /// Text that begins a transaction.
    begin: String,
    /// Set when statements are not prepared on the connections.
    types: Option<Arc<TypeCache>>,
    times: ConnectionTimes,
    state: Mutex<State>,
}

/// An open connection and the task that drives it.
pub(super) struct Member {
    pub(super) connection: Box<Connection>,
    driver: Driver,
}

#[derive(Default)]
struct State {
    idle: Vec<Member>,
    /// Number of connections, including those that are being opened or closed.
    connections: usize,
    waiting: VecDeque<Waiter>,
}

/// Receives a connection, or the reason why none can be opened.
type Waiter = oneshot::Sender<Result<Lease, Arc<str>>>;

impl Pool {
    /// Opens connections on demand, and registers the metrics of the pool.
    pub(super) fn new(
        share: Share,
        connector: &Connector,
        types: Option<&Arc<TypeCache>>,
        database: &Database,
    ) -> Self {
        let connector = connector.with(share.timeouts).named(share.name);
        let shared = Arc::new(Shared {
            begin: connector.begin(),
            connector,
            types: types.cloned(),
            times: ConnectionTimes::new(share.name),
            state: Mutex::default(),
            share,
        });
        // A weak reference, because metrics outlive the pool and must not keep its connections open.
        let observed = Arc::downgrade(&shared);
        database.observe_connections(share.name, move || {
            let shared = observed.upgrade();
            shared.map(|shared| shared.counts()).unwrap_or_default()
        });
        Self(shared)
    }

    /// Starts to open a connection before the first caller needs it, without waiting. Must be called within a
    /// Tokio runtime.
    pub(super) fn open_early(self) -> Self {
        self.0.open(&mut self.0.state());
        self
    }

    /// Runs one statement. A read whose connection is lost is retried.
    pub(super) async fn run(
        &self,
        database: &Database,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let start = Instant::now();
        let run = || self.transaction(database, &[], (statement, params), start);
        retry_reads(statement, self.0.share.size, run).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`. Retries the
    /// transaction once if it lost a race or the schema changed. The wait for a connection and for the first
    /// response counts from `start`.
    ///
    /// Records a span for each statement of `before`. The caller records the span of `last`, which covers the
    /// whole transaction.
    pub(super) async fn transaction(
        &self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
        let lease = self.borrow(start + CHECKOUT_TIMEOUT).await?;
        let respond_by = start + RESPONSE_TIMEOUT;
        let result = match lease.run(database, before, last, respond_by).await {
            Err(error) if error.lost_race() || error.outdated_statement() => {
                record_retry(&error);
                if error.outdated_statement() {
                    let statements = before.iter().map(|(statement, _)| *statement);
                    statements
                        .chain([last.0])
                        .for_each(|statement| lease.forget(statement));
                }
                lease.run(database, before, last, respond_by).await
            }
            result => result,
        };
        match &result {
            Err(error) if !error.was_received() => drop(lease),
            Err(error) if !lease.is_usable_after(error) => lease.discard(),
            _ => lease.give_back(),
        }
        result
    }

    /// Counts a call that did not get what it waited for.
    pub(super) fn timed_out(&self) {
        self.0.times.timed_out();
    }

    /// Closes the idle connections, so that the next callers look up the server again.
    pub(super) fn reconnect(&self) {
        let mut state = self.0.state();
        state.connections -= state.idle.len();
        state.idle.clear();
    }

    async fn borrow(&self, deadline: Instant) -> Result<Lease> {
        let asked = Instant::now();
        let lease = match self.0.take()? {
            Taken::Idle(lease) => lease,
            Taken::Queued(lease) => match timeout_at(deadline, lease).await {
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
        self.0.times.waited(asked.elapsed());
        Ok(lease)
    }
}

/// Response to a caller that asks for a connection.
enum Taken {
    Idle(Lease),
    Queued(oneshot::Receiver<Result<Lease, Arc<str>>>),
}

impl Shared {
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
            self.times.timed_out();
            return Err(StatementError::unavailable(
                "too many callers wait for a connection",
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
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            match shared.connector.open_in_time().await {
                Ok((client, driver)) => {
                    let connection = Box::new(Connection::new(client, shared.types.clone()));
                    shared.offer(Member { connection, driver });
                }
                Err(reason) => shared.failed(&reason.into()),
            }
        });
    }

    /// Gives a connection to the caller that has waited longest, or keeps it.
    pub(super) fn offer(self: &Arc<Self>, member: Member) {
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
    pub(super) fn close(self: Arc<Self>, member: Member) {
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

    pub(super) fn used(&self, time: Duration) {
        self.times.used(time);
    }

    pub(super) fn begin(&self) -> &str {
        &self.begin
    }

    /// Whether the time-outs apply to statements outside of a transaction.
    pub(super) fn keeps_settings(&self) -> bool {
        self.connector.keeps_settings()
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.share.timeouts
    }

    /// Replaces a closed connection if callers wait.
    pub(super) fn closed(self: &Arc<Self>) {
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

    fn counts(&self) -> ConnectionCounts {
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
