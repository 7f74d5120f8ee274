//! The pool for work that must not delay single statements: transactions and slow statements. A connection is
//! not checked before it is used: the check is pipelined with the work.

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
    connector::{Connector, describe},
    result::StatementResult,
    retry::{record_retry, retry_reads},
    statement::{Params, Prepared},
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// Maximum wait for a connection, including opening one.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum wait for the first response, and for a whole transaction.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Maximum duration of a slow statement on a server that responds.
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

    /// Runs a statement for up to [`SLOW_TIMEOUT`]. A read whose connection is lost is retried.
    pub(super) async fn run_slow(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let start = Instant::now();
        let run = || self.run(Work::Slow(statement, params), start);
        retry_reads(statement, self.connections.status().max_size, run).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`.
    ///
    /// Records a span for each statement of `before`. The caller records the span of `last`, which covers the
    /// whole transaction.
    pub(super) async fn transaction(
        &self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<StatementResult> {
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

    /// Runs `work` on a connection of the pool, with one retry if it loses a race or the schema changed.
    /// Time-outs count from `start`.
    async fn run(&self, work: Work<'_>, start: Instant) -> Result<StatementResult> {
        let lease = self.borrow(start).await?;
        let result = match work.on(&lease).await {
            Err(error) if error.lost_race() || error.outdated_statement() => {
                record_retry(&error);
                if error.outdated_statement() {
                    lease.client().statement_cache.clear();
                }
                work.on(&lease).await
            }
            result => result,
        };
        if result.as_ref().err().is_none_or(StatementError::keeps_connection) {
            lease.give_back();
        }
        result
    }

    async fn borrow(&self, start: Instant) -> Result<Lease<'_>> {
        let asked = Instant::now();
        let Ok(client) = timeout_at(start + CHECKOUT_TIMEOUT, self.connections.get()).await else {
            self.times.timed_out();
            return Err(StatementError::unavailable(
                "no connection became available in time",
            ));
        };
        let client = client.map_err(unavailable)?;
        self.times.waited(asked.elapsed());
        Ok(Lease {
            client: Some(client),
            pool: self,
            since: Instant::now(),
            deadline: start + RESPONSE_TIMEOUT,
        })
    }
}

/// Work for which a connection is borrowed.
#[derive(Clone, Copy)]
enum Work<'a> {
    Slow(&'a Statement, Params<'a>),
    Transaction(&'a Database, &'a [Step<'a>], Step<'a>),
}

impl Work<'_> {
    async fn on(self, lease: &Lease<'_>) -> Result<StatementResult> {
        match self {
            Self::Slow(statement, params) => lease.run_slow(statement, params).await,
            Self::Transaction(database, before, last) => lease.transaction(database, before, last).await,
        }
    }
}

/// A borrowed connection, which returns to the pool only after a response. After a time-out, or when its
/// caller is dropped, the connection may still be busy and is closed instead.
struct Lease<'a> {
    client: Option<Object>,
    pool: &'a Pool,
    since: Instant,
    /// Deadline for the first response.
    deadline: Instant,
}

impl Lease<'_> {
    fn client(&self) -> &Object {
        self.client.as_ref().expect("only `give_back` and `drop` take it")
    }

    fn give_back(mut self) {
        drop(self.client.take());
    }

    /// Pipelines a check ahead of the statement, which distinguishes a busy server from a dead one.
    async fn run_slow(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let prepared = self.prepare(statement).await?;
        let alive = in_time(self.deadline, self.client().check_connection());
        let result = in_time(
            Instant::now() + SLOW_TIMEOUT,
            StatementResult::fetch(self.client(), &prepared, params),
        );
        try_join(alive, result).await.map(|((), result)| result)
    }

    /// Sends everything together: there is one round trip, and a caller that is dropped leaves no transaction
    /// open, because `COMMIT` was sent with `BEGIN`.
    async fn transaction(
        &self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<StatementResult> {
        let client = self.client();
        let mut first = Vec::with_capacity(before.len());
        for (statement, params) in before {
            let prepared = self.prepare(statement).await?;
            first.push(async move {
                let step = StatementResult::fetch(client, &prepared, params).map_err(StatementError::from);
                database.observe(statement, step).await
            });
        }
        let (statement, params) = last;
        let last = self.prepare(statement).await?;
        let work = join4(
            client.batch_execute("BEGIN"),
            join_all(first),
            StatementResult::fetch(client, &last, params),
            // Rolls back after a failed step.
            client.batch_execute("COMMIT"),
        );
        let work = work.map(Ok::<_, StatementError>);
        let (begin, first, result, commit) = in_time(self.deadline, work).await?;
        begin?;
        first.into_iter().collect::<Result<Vec<_>, _>>()?;
        let result = result?;
        commit?;
        Ok(result)
    }

    async fn prepare(&self, statement: &Statement) -> Result<Prepared> {
        match &self.pool.types {
            Some(types) => in_time(self.deadline, types.of(statement))
                .await
                .map(|types| Prepared::InFull(statement.text, types)),
            None => in_time(self.deadline, self.client().prepare_cached(statement.text))
                .await
                .map(Prepared::Named),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.client.take() {
            drop(Object::take(busy));
        }
        self.pool.times.used(self.since.elapsed());
    }
}

/// Runs `work` up to the deadline. Not an `async fn`, whose future would contain `work` twice.
fn in_time<T, E: Into<StatementError>>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T>> {
    timeout_at(deadline, work).map(|result| match result {
        Ok(result) => result.map_err(E::into),
        Err(_elapsed) => Err(StatementError::unavailable("no response in time")),
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
        // Limited by the checkout time-out.
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
