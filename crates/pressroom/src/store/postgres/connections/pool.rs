//! The pool for what must not hold up single statements: transactions and scans. A connection is
//! checked while it is used, not before: the check travels with the work.

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
    super::error::StatementError,
    Params, again,
    answer::{Answer, Prepared},
    connector::{Connector, in_words},
    signature::Signatures,
};

/// How long a caller waits for a connection, opening one included.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a caller waits for the first sign of life, and for a whole transaction.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_800);
/// How long a scan may take on a server that is alive.
pub(super) const SCAN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that have one user at a time.
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    /// There where statements are not prepared on the connections.
    signatures: Option<Arc<Signatures>>,
    times: ConnectionTimes,
}

/// One statement of a transaction.
pub(super) type Step<'a> = (&'a Statement, Params<'a>);

impl Pool {
    /// `name` is the pool's, for its measures.
    pub(super) fn new(
        name: &'static str,
        connector: Connector,
        signatures: Option<Arc<Signatures>>,
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
            signatures,
            times: ConnectionTimes::new(name),
        })
    }

    /// Runs a statement that may take up to [`SCAN_TIMEOUT`]; a read whose connection is lost,
    /// again over another one.
    pub(super) async fn scan(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let work = Work::Scan(statement, params);
        let begun = Instant::now();
        let mut answer = self.run(work, begun).await;
        // After a restart all connections may be dead and not yet known to be.
        for _ in 0..self.connections.status().max_size {
            match answer {
                Err(error) if error.may_be_read_again(statement) => {
                    again(&error);
                    answer = self.run(work, begun).await;
                }
                answer => return answer,
            }
        }
        answer
    }

    /// Runs `before` and then `last` as one transaction and answers with the last one's answer. Each statement before it
    /// is observed; the whole, which is named after the last, is the caller's to observe.
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

    /// Works on a connection of the pool; once more when another transaction got in the way or
    /// the schema changed. Times count from `begun`.
    async fn run(&self, work: Work<'_>, begun: Instant) -> Result<Answer, StatementError> {
        let lease = self.borrow(begun + CHECKOUT_TIMEOUT).await?;
        let deadline = begun + ANSWER_TIMEOUT;
        let session = PoolSession {
            client: lease.client(),
            signatures: self.signatures.as_deref(),
            deadline,
        };
        let answer = match work.on(session).await {
            Err(error) if error.outdated_statement() => {
                again(&error);
                session.client.statement_cache.clear();
                work.on(session).await
            }
            Err(error) if error.lost_to_another() => {
                again(&error);
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

/// What a connection is borrowed for.
#[derive(Clone, Copy)]
enum Work<'a> {
    Scan(&'a Statement, Params<'a>),
    Transaction(&'a Database, &'a [Step<'a>], Step<'a>),
}

impl Work<'_> {
    async fn on(self, session: PoolSession<'_>) -> Result<Answer, StatementError> {
        match self {
            Self::Scan(statement, params) => session.scan(statement, params).await,
            Self::Transaction(database, before, last) => session.transaction(database, before, last).await,
        }
    }
}

/// A borrowed connection at work; the first answer must come by the deadline.
#[derive(Clone, Copy)]
struct PoolSession<'a> {
    client: &'a Object,
    signatures: Option<&'a Signatures>,
    deadline: Instant,
}

impl PoolSession<'_> {
    /// A check goes ahead of the statement in the same flight: it tells a server that works from one
    /// that is gone.
    async fn scan(self, statement: &Statement, params: Params<'_>) -> Result<Answer, StatementError> {
        let prepared = self.prepare(statement).await?;
        let alive = in_time(self.deadline, self.client.check_connection());
        let scan = in_time(
            Instant::now() + SCAN_TIMEOUT,
            Answer::to(self.client, &prepared, params),
        );
        try_join(alive, scan).await.map(|((), answer)| answer)
    }

    /// All is sent at once: one round trip, and a caller that goes away leaves no transaction open,
    /// since its end was sent with its beginning.
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
            // After a failed step the server rolls back here.
            client.batch_execute("COMMIT"),
        );
        let (begun, first, answer, committed) = timeout_at(self.deadline, work)
            .await
            .map_err(|_elapsed| StatementError::unavailable("no answer in time"))?;
        begun?;
        first.into_iter().collect::<Result<Vec<_>, _>>()?;
        let answer = answer?;
        committed?;
        Ok(answer)
    }

    async fn prepare(self, statement: &Statement) -> Result<Prepared, StatementError> {
        match self.signatures {
            Some(signatures) => timeout_at(self.deadline, signatures.of(statement))
                .await
                .map_err(|_elapsed| StatementError::unavailable("no answer in time"))?
                .map(|signature| Prepared::InFull(statement.text, signature)),
            None => in_time(self.deadline, self.client.prepare_cached(statement.text))
                .await
                .map(Prepared::Named),
        }
    }
}

/// A connection on loan. It goes back only after an answer: one given up on, for a time-out or by a
/// caller that went away, may still be busy, and is closed instead.
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

async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StatementError> {
    match timeout_at(deadline, work).await {
        Ok(answer) => answer.map_err(StatementError::from),
        Err(_elapsed) => Err(StatementError::unavailable("no answer in time")),
    }
}

fn unavailable(error: deadpool_postgres::PoolError) -> StatementError {
    match error {
        deadpool_postgres::PoolError::Backend(error) => StatementError::unavailable(in_words(&error)),
        other => StatementError::unavailable(other.to_string()),
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        // Bounded by the checkout, which gives up on opening as well.
        async move {
            let (client, driver) = self.open().await?;
            let driver = tokio::spawn(async move {
                // How it ended is told to the statement that was under way.
                let _ended = driver.await;
            });
            Ok((client, driver))
        }
        .boxed()
    }
}
