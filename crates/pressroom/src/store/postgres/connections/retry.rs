//! Retries of statements.

use telemetry::{Failure as _, Statement};

use super::result::StatementResult;
use crate::store::postgres::error::{Result, StatementError};

/// Runs `statement` by calling `run`. A read whose connection is lost is retried up to once per connection,
/// because a restart of the server may have broken all of them unnoticed. There is no back-off, because each
/// retry uses another connection.
pub(super) async fn retry_reads<F>(
    statement: &Statement,
    connections: usize,
    run: impl Fn() -> F,
) -> Result<StatementResult>
where
    F: Future<Output = Result<StatementResult>>,
{
    for _ in 0..connections {
        match run().await {
            Err(error) if error.connection_lost && statement.operation == "SELECT" => record_retry(&error),
            result => return result,
        }
    }
    run().await
}

/// Records a retry on the statement's span and in the log.
pub(super) fn record_retry(error: &StatementError) {
    telemetry::statement_retried(error);
    telemetry::debug!(exception.message = error.message(), "retrying a statement");
}
