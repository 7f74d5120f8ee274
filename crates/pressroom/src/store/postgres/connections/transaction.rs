//! Statements and transactions on a connection with one caller.

use std::time::Duration;

use futures_util::{
    FutureExt, TryFutureExt,
    future::{join_all, join3, try_join, try_join_all},
};
use telemetry::{Database, Statement};
use tokio::time::{Instant, timeout_at};

use super::{
    connection::Connection,
    connector::{Connector, Settings},
    result::StatementResult,
    statement::Params,
};
use crate::store::postgres::error::{Result, StatementError};

/// Maximum wait for the first response.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Additional wait for the response to a slow statement, so that the server's time-out comes first.
const GRACE: Duration = Duration::from_millis(300);

/// One statement of a transaction.
pub(super) type Step<'a> = (&'a Statement, Params<'a>);

/// Settings of the transactions of a share.
pub(super) struct Transactions {
    statement_timeout: Duration,
    /// SQL that begins a transaction.
    begin: String,
    /// Whether the settings also apply to statements outside a transaction.
    has_settings: bool,
}

impl Transactions {
    pub(super) fn new(connector: &Connector, settings: Settings) -> Self {
        Self {
            statement_timeout: settings.statement_timeout,
            begin: connector.begin(),
            has_settings: connector.keeps_settings(),
        }
    }

    /// Runs `before` and then `last`, in a transaction if there are several statements or if the time-outs
    /// must be set for each transaction.
    ///
    /// Sends everything together: there is one round trip, and a caller that is dropped leaves no transaction
    /// open, because `COMMIT` was sent with `BEGIN`.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        database: &Database,
        before: &[Step<'_>],
        last: Step<'_>,
        respond_by: Instant,
    ) -> Result<StatementResult> {
        let statements = before.iter().chain([&last]);
        let prepared = try_join_all(statements.map(|(statement, _)| connection.prepare(statement)));
        let prepared = in_time(respond_by, prepared).await?;
        let (last_prepared, first_prepared) = prepared.split_last().expect("`last` was prepared");
        let end_by = respond_by.max(Instant::now() + self.statement_timeout + GRACE);
        let last = StatementResult::fetch(&connection.client, last_prepared, last.1);
        if before.is_empty() && self.has_settings {
            if self.statement_timeout < RESPONSE_TIMEOUT {
                return in_time(respond_by, last).await;
            }
            // The check ahead of a slow statement distinguishes a busy server from a dead one.
            let alive = in_time(respond_by, connection.client.check_connection());
            return try_join(alive, in_time(end_by, last))
                .await
                .map(|((), result)| result);
        }
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
        let begin = in_time(respond_by, connection.client.batch_execute(&self.begin));
        let ((), (first, result, commit)) = try_join(begin, work).await?;
        first.into_iter().collect::<Result<Vec<_>, _>>()?;
        let result = result?;
        commit?;
        Ok(result)
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
