//! A share of the connections, each with one caller at a time, for statements that may wait or be slow.

use std::{sync::Arc, time::Duration};

use telemetry::{Database, Statement};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    connector::Connector,
    members::{Members, Share},
    result::StatementResult,
    retry::{record_retry, retry_reads},
    statement::Params,
    transaction::{RESPONSE_TIMEOUT, Step, Transactions},
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// Maximum wait for a connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of the rows of a write, in bytes, above which its connection is closed.
const LARGE: usize = 256 * 1024;

/// Runs statements and transactions on the connections of a share.
pub(super) struct Pool {
    members: Arc<Members>,
    transactions: Transactions,
    size: usize,
    half: Semaphore,
}

impl Pool {
    /// Creates a pool that opens connections on demand, and registers its metrics.
    pub(super) fn new(
        share: Share,
        connector: &Connector,
        types: Option<&Arc<TypeCache>>,
        database: &Database,
    ) -> Self {
        let members = Members::new(share, connector, types);
        // A weak reference, because metrics outlive the pool and must not keep its connections open.
        let observed = Arc::downgrade(&members);
        database.observe_connections(share.name, move || {
            let members = observed.upgrade();
            members.map(|members| members.counts()).unwrap_or_default()
        });
        Self {
            members,
            transactions: Transactions::new(&connector.with(share.settings), share.settings),
            size: share.size,
            half: Semaphore::new((share.size / 2).max(1)),
        }
    }

    /// Opens a connection in the background before the first caller needs it. Must be called within a Tokio
    /// runtime.
    pub(super) fn open_early(self) -> Self {
        self.members.open_early();
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
        retry_reads(statement, self.size, run).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`. Retries the
    /// transaction once if it lost a race or the schema changed. The time limits of the wait for a connection and
    /// for the first response begin at `start`.
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
        let lease = self.members.borrow(start + CHECKOUT_TIMEOUT).await?;
        let connection = lease.connection();
        let respond_by = start + RESPONSE_TIMEOUT;
        let run = || {
            self.transactions
                .run(connection, database, before, last, respond_by)
        };
        let result = match run().await {
            Err(error) if error.lost_race() || error.outdated_statement() => {
                record_retry(&error);
                if error.outdated_statement() {
                    for (statement, _) in before.iter().chain([&last]) {
                        connection.forget(statement);
                    }
                }
                run().await
            }
            result => result,
        };
        match &result {
            Err(error) if !error.was_received() => drop(lease),
            Err(error) if !lease.is_usable_after(error) => lease.discard(),
            // The connection would keep buffers of twice the size.
            Ok(result) if last.0.operation != "SELECT" && result.bytes() > LARGE => lease.discard(),
            _ => lease.give_back(),
        }
        result
    }

    /// Waits for a permit to use one half of the connections, for calls that must leave the other half to others. The
    /// time limit begins at `start`.
    pub(super) async fn half(&self, start: Instant) -> Result<SemaphorePermit<'_>> {
        if let Ok(Ok(permit)) = timeout_at(start + CHECKOUT_TIMEOUT, self.half.acquire()).await {
            return Ok(permit);
        }
        self.timed_out();
        let reason = "no connection became available in time";
        Err(StatementError::unavailable(reason))
    }

    /// Counts a call that did not get a lock in time.
    pub(super) fn timed_out(&self) {
        self.members.timed_out();
    }

    /// Closes the idle connections, so that the next callers look up the server again.
    pub(super) fn reconnect(&self) {
        self.members.reconnect();
    }
}
