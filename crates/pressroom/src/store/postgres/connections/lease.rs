//! A connection that a caller has borrowed from a pool, and the statements that run on it.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt, TryFutureExt,
    future::{join_all, join3, try_join, try_join_all},
};
use telemetry::{Database, Statement};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;

use super::{
    connection::Connection,
    pool::{Member, RESPONSE_TIMEOUT, Shared},
    result::StatementResult,
    statement::Params,
};
use crate::store::postgres::error::{Result, StatementError};

/// Additional wait for the response to a slow statement, so that the server's time-out comes first.
const GRACE: Duration = Duration::from_millis(300);
/// Minimum age of a connection at which a read-only server is looked up again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// One statement of a transaction.
pub(super) type Step<'a> = (&'a Statement, Params<'a>);

/// A borrowed connection, which returns to the pool only after a response. After a time-out, or when its
/// caller is dropped, the connection may still be busy and is closed instead.
pub(super) struct Lease {
    member: Option<Member>,
    pool: Arc<Shared>,
    since: Instant,
}

impl Lease {
    pub(super) fn new(pool: Arc<Shared>, member: Member) -> Self {
        Self {
            member: Some(member),
            pool,
            since: Instant::now(),
        }
    }

    pub(super) fn into_member(mut self) -> Option<Member> {
        self.member.take()
    }

    pub(super) fn give_back(mut self) {
        self.pool.used(self.since.elapsed());
        if let Some(member) = self.member.take() {
            self.pool.offer(member);
        }
    }

    /// Closes the connection, which waits for no response.
    pub(super) fn discard(mut self) {
        self.pool.used(self.since.elapsed());
        drop(self.member.take());
        self.pool.closed();
    }

    pub(super) fn forget(&self, statement: &Statement) {
        self.connection().forget(statement);
    }

    /// Whether the connection can run further statements after this response.
    ///
    /// After a fail-over, the server may be a standby. A connection that has been open for a while is then
    /// closed, because its successor may reach the new primary.
    pub(super) fn is_usable_after(&self, error: &StatementError) -> bool {
        let is_outdated = error.is(&SqlState::READ_ONLY_SQL_TRANSACTION)
            && self.connection().opened.elapsed() >= LOOKUP_INTERVAL;
        !error.connection_lost && !is_outdated
    }

    /// Runs `before` and then `last`, in a transaction if there are several statements or if the time-outs
    /// must be set for each transaction.
    ///
    /// Sends everything together: there is one round trip, and a caller that is dropped leaves no transaction
    /// open, because `COMMIT` was sent with `BEGIN`.
    pub(super) async fn run(
        &self,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
        respond_by: Instant,
    ) -> Result<StatementResult> {
        let connection = self.connection();
        let statements = before.iter().chain([&last]);
        let prepared = try_join_all(statements.map(|(statement, _)| connection.prepare(statement)));
        let prepared = in_time(respond_by, prepared).await?;
        let (last_prepared, first_prepared) = prepared.split_last().expect("`last` was prepared");
        let statement_timeout = self.pool.timeouts().statement;
        let end_by = respond_by.max(Instant::now() + statement_timeout + GRACE);
        let last = StatementResult::fetch(&connection.client, last_prepared, last.1);
        if before.is_empty() && self.pool.keeps_settings() {
            if statement_timeout < RESPONSE_TIMEOUT {
                return in_time(respond_by, last).await;
            }
            // The check ahead of a slow statement distinguishes a busy server from a dead one.
            let alive = in_time(respond_by, connection.client.check_connection());
            return try_join(alive, in_time(end_by, last))
                .await
                .map(|((), result)| result);
        }
        let begin = self.pool.begin();
        let first = before.iter().zip(first_prepared);
        let first = first.map(|((statement, params), prepared)| {
            let step = StatementResult::fetch(&connection.client, prepared, params);
            database.observe(statement, Box::pin(step.map_err(StatementError::from)))
        });
        let work = join3(
            join_all(first),
            last,
            // Rolls back after a failed step.
            connection.client.batch_execute("COMMIT"),
        );
        let work = in_time(end_by, work.map(Ok::<_, StatementError>));
        let begin = in_time(respond_by, connection.client.batch_execute(begin));
        let ((), (first, result, commit)) = try_join(begin, work).await?;
        first.into_iter().collect::<Result<Vec<_>, _>>()?;
        let result = result?;
        commit?;
        Ok(result)
    }

    fn connection(&self) -> &Connection {
        let member = self.member.as_ref();
        &member
            .expect("only the methods that consume the lease take it")
            .connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(busy) = self.member.take() {
            self.pool.used(self.since.elapsed());
            Arc::clone(&self.pool).close(busy);
        }
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
