//! The pool for work that must not delay single statements: transactions and slow statements. A connection is
//! checked while it is used, not before: the check is pipelined with the work.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, RecyclingMethod};
use futures_util::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, join_all, join4, try_join},
};
use telemetry::{ConnectionCounts, ConnectionTimes, Database, Statement};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_postgres::Client;

use super::{
    answer::Answer,
    connector::{Connector, describe},
    statement::{Params, Prepared, record_retry},
    types::TypeCache,
};
use crate::store::postgres::error::StatementError;

/// Maximum wait for a connection, including opening one.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum wait for the first answer, and for a whole transaction.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Maximum duration of a slow statement on a server that answers.
pub(super) const SLOW_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that have one user at a time.
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    /// Set when statements are not prepared on the connections.
    types: Option<Arc<TypeCache>>,
    times: ConnectionTimes,
}

/// One statement of a transaction.
pub(super) type Step<'a> = (&'a Statement, Params<'a>);

impl Pool {
    /// `name` is the pool's name in metrics.
    pub(super) fn new(
        name: &'static str,
        connector: Connector,
        types: Option<Arc<TypeCache>>,
        size: usize,
    ) -> Result<Self, deadpool_postgres::BuildError> {
        let settings = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_connect(tokio_postgres::Config::new(), connector, settings);
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size.max(1))
            .build()?;
        Ok(Self {
            connections,
            types,
            times: ConnectionTimes::new(name),
        })
    }

    /// Runs a statement for up to [`SLOW_TIMEOUT`]. A read whose connection is lost is retried over another
    /// one.
    pub(super) async fn run_slow(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let work = Work::Slow(statement, params);
        let begun = Instant::now();
        let mut answer = self.run(work, begun).await;
        // A restart of the server may have broken all connections unnoticed.
        for _ in 0..self.connections.status().max_size {
            match answer {
                Err(error) if error.allows_read_retry(statement) => {
                    record_retry(&error);
                    answer = self.run(work, begun).await;
                }
                answer => return answer,
            }
        }
        answer
    }

    /// Runs `before` and then `last` as one transaction, and returns the answer to `last`.
    ///
    /// Records a span for each statement of `before`; the caller records the one of `last`, which covers the
    /// whole transaction.
    pub(super) async fn transaction(
        &self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<Answer, StatementError> {
        let work = Work::Transaction(database, before, last);
        self.run(work, Instant::now()).await
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let status = self.connections.status();
        ConnectionCounts {
            idle: status.available as u64,
            used: status.size.saturating_sub(status.available) as u64,
            max: status.max_size as u64,
            pending: status.waiting as u64,
        }
    }

    /// Does `work` on a connection of the pool, with one retry when it loses a race or the schema changed.
    /// Time-outs count from `begun`.
    async fn run(&self, work: Work<'_>, begun: Instant) -> Result<Answer, StatementError> {
        let lease = self.borrow(begun + CHECKOUT_TIMEOUT).await?;
        let deadline = begun + ANSWER_TIMEOUT;
        let session = PooledConnection {
            client: lease.client(),
            types: self.types.as_deref(),
            deadline,
        };
        let answer = match work.on(session).await {
            Err(error) if error.outdated_statement() => {
                record_retry(&error);
                session.client.statement_cache.clear();
                work.on(session).await
            }
            Err(error) if error.lost_race() => {
                record_retry(&error);
                work.on(session).await
            }
            answer => answer,
        };
        if answer.as_ref().map_or_else(StatementError::is_answer, |_| true) {
            lease.give_back();
        }
        answer
    }

    async fn borrow(&self, deadline: Instant) -> Result<Lease<'_>, StatementError> {
        let asked = Instant::now();
        let Ok(client) = timeout_at(deadline, self.connections.get()).await else {
            self.times.timed_out();
            return Err(StatementError::unavailable("no connection free in time"));
        };
        let client = client.map_err(unavailable)?;
        self.times.waited(asked.elapsed());
        Ok(Lease {
            client: Some(client),
            since: Instant::now(),
            times: &self.times,
        })
    }
}

/// The purpose for which a connection is borrowed.
#[derive(Clone, Copy)]
enum Work<'a> {
    Slow(&'a Statement, Params<'a>),
    Transaction(&'a Database, &'a [Step<'a>], Step<'a>),
}

impl Work<'_> {
    async fn on(self, session: PooledConnection<'_>) -> Result<Answer, StatementError> {
        match self {
            Self::Slow(statement, params) => session.run_slow(statement, params).await,
            Self::Transaction(database, before, last) => session.transaction(database, before, last).await,
        }
    }
}

/// A borrowed connection, whose first answer must arrive by the deadline.
#[derive(Clone, Copy)]
struct PooledConnection<'a> {
    client: &'a Object,
    types: Option<&'a TypeCache>,
    deadline: Instant,
}

impl PooledConnection<'_> {
    /// Pipelines a check ahead of the statement, which tells a busy server from a dead one.
    async fn run_slow(self, statement: &Statement, params: Params<'_>) -> Result<Answer, StatementError> {
        let prepared = self.prepare(statement).await?;
        let alive = in_time(self.deadline, self.client.check_connection());
        let answer = in_time(
            Instant::now() + SLOW_TIMEOUT,
            Answer::to(self.client, &prepared, params),
        );
        try_join(alive, answer).await.map(|((), answer)| answer)
    }

    /// Sends everything at once: one round trip, and a caller that is dropped leaves no transaction open,
    /// since `COMMIT` was sent with `BEGIN`.
    async fn transaction(
        self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<Answer, StatementError> {
        let client = self.client;
        let mut first = Vec::with_capacity(before.len());
        for (statement, params) in before {
            let prepared = self.prepare(statement).await?;
            first.push(async move {
                let step = Answer::to(client, &prepared, params).map_err(StatementError::from);
                database.observe(statement, step).await
            });
        }
        let (statement, params) = last;
        let last = self.prepare(statement).await?;
        let work = join4(
            client.batch_execute("BEGIN"),
            join_all(first),
            Answer::to(client, &last, params),
            // The server rolls back here after a failed step.
            client.batch_execute("COMMIT"),
        );
        let work = work.map(Ok::<_, StatementError>);
        let (begun, first, answer, committed) = in_time(self.deadline, work).await?;
        begun?;
        first.into_iter().collect::<Result<Vec<_>, _>>()?;
        let answer = answer?;
        committed?;
        Ok(answer)
    }

    async fn prepare(self, statement: &Statement) -> Result<Prepared, StatementError> {
        match self.types {
            Some(types) => in_time(self.deadline, types.of(statement))
                .await
                .map(|types| Prepared::InFull(statement.text, types)),
            None => in_time(self.deadline, self.client.prepare_cached(statement.text))
                .await
                .map(Prepared::Named),
        }
    }
}

/// A borrowed connection, returned to the pool only after an answer. After a time-out, or when its caller is
/// dropped, it may still be busy and is closed instead.
struct Lease<'a> {
    client: Option<Object>,
    since: Instant,
    times: &'a ConnectionTimes,
}

impl Lease<'_> {
    fn client(&self) -> &Object {
        self.client.as_ref().expect("only `give_back` and `drop` take it")
    }

    fn give_back(mut self) {
        drop(self.client.take());
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.client.take() {
            drop(Object::take(busy));
        }
        self.times.used(self.since.elapsed());
    }
}

/// Bounds `work` by the deadline. Not an `async fn`, whose future would have room for `work` twice.
fn in_time<T, E: Into<StatementError>>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, StatementError>> {
    timeout_at(deadline, work).map(|answer| match answer {
        Ok(answer) => answer.map_err(E::into),
        Err(_elapsed) => Err(StatementError::unavailable("no answer in time")),
    })
}

fn unavailable(error: deadpool_postgres::PoolError) -> StatementError {
    match error {
        deadpool_postgres::PoolError::Backend(error) => StatementError::unavailable(describe(&error)),
        other => StatementError::unavailable(other.to_string()),
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        // The checkout time-out bounds this too.
        async move {
            let (client, driver) = self.open().await?;
            let driver = tokio::spawn(async move {
                // The pending statement reports the error.
                let _ended = driver.await;
            });
            Ok((client, driver))
        }
        .boxed()
    }
}
