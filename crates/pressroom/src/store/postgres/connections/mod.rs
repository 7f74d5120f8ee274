//! The way to the database. There is only this one: whoever has a [`Connections`] runs a
//! [`Statement`] and gets its rows, and the statement's span and duration come with it. What could
//! run SQL without them is private to this module, and clippy refuses it elsewhere.
//!
//! Single statements go over a [`lane`] of shared, pipelined connections; transactions and scans
//! over a [`pool`].
#![expect(
    clippy::disallowed_methods,
    reason = "this is where statements are sent, each within its span"
)]

mod answer;
mod connector;
mod lane;
mod pool;
mod session;
mod signature;

use std::sync::Arc;

use futures_util::TryFutureExt;
use telemetry::{Database, Failure as _, Statement};
use tokio_postgres::{Row, types::ToSql};

pub(super) use self::connector::Connector;
pub use self::connector::TlsError;
use self::{
    lane::Lane,
    pool::{Pool, Step},
    signature::Signatures,
};
use super::{SetupError, config::PostgresConfig, error::StatementError};

/// Which server connections lead to; it decides the names of their pools in metrics and logs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Primary,
    Replica,
}

impl Role {
    fn lane(self) -> &'static str {
        match self {
            Self::Primary => "postgres.lane",
            Self::Replica => "postgres.replica.lane",
        }
    }

    fn pool(self) -> &'static str {
        match self {
            Self::Primary => "postgres.pool",
            Self::Replica => "postgres.replica.pool",
        }
    }
}

/// A statement's parameters.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The connections of a store.
pub(super) struct Connections {
    database: Database,
    lane: Arc<Lane>,
    pool: Arc<Pool>,
}

impl Connections {
    /// Begins to connect and returns at once: a database that is down now makes methods fail with
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable) until it is up. Must be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(super) fn open(config: &PostgresConfig, role: Role) -> Result<Self, SetupError> {
        let single = Connector::new(config, lane::STATEMENT_TIMEOUT)?.measured_for(role.lane());
        let scans = Connector::new(config, pool::SCAN_TIMEOUT)?.measured_for(role.pool());
        let signatures = (!config.prepared_statements).then(|| Arc::new(Signatures::new(single.clone())));
        let lane = Arc::new(Lane::new(role.lane(), &single, signatures.as_ref(), config.lanes));
        let pool = Pool::new(role.pool(), scans, signatures, config.pool_size)
            .map_err(|error| SetupError::Pool(error.to_string()))?;
        let pool = Arc::new(pool);
        let database = Database::new("postgresql", config.database(), config.server());
        // Metrics outlive the store; they must not keep its connections open.
        let (lane_counts, pool_counts) = (Arc::downgrade(&lane), Arc::downgrade(&pool));
        database.observe_connections(role.lane(), move || {
            lane_counts
                .upgrade()
                .map(|lane| lane.counts())
                .unwrap_or_default()
        });
        database.observe_connections(role.pool(), move || {
            pool_counts
                .upgrade()
                .map(|pool| pool.counts())
                .unwrap_or_default()
        });
        Ok(Self { database, lane, pool })
    }

    /// All rows of a single statement.
    pub(super) async fn rows(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let rows = self.lane.run(statement, params).map_ok(|answer| answer.rows);
        self.database.observe(statement, rows).await
    }

    /// The row of a single statement that gives one or none.
    pub(super) async fn row(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Option<Row>, StatementError> {
        let first = self.lane.run(statement, params);
        let first = first.map_ok(|answer| answer.rows.into_iter().next());
        self.database.observe(statement, first).await
    }

    /// How many rows a single statement changed.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<u64, StatementError> {
        let changed = self.lane.run(statement, params).map_ok(|answer| answer.affected);
        self.database.observe(statement, changed).await
    }

    /// All rows of a statement that may take its time.
    pub(super) async fn scan(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let rows = self.pool.scan(statement, params).map_ok(|answer| answer.rows);
        self.database.observe(statement, rows).await
    }

    /// How many rows a statement changed that may take its time.
    pub(super) async fn sweep(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<u64, StatementError> {
        let changed = self.pool.scan(statement, params).map_ok(|answer| answer.affected);
        self.database.observe(statement, changed).await
    }

    /// Runs `before` and then `last` as one transaction; the rows are the last one's. The span that
    /// is named after it covers all of it: a `BEGIN` or `COMMIT` that fails shows there, and the
    /// statements before it are spans below.
    pub(super) async fn transaction(
        &self,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let answer = self.pool.transaction(&self.database, before, last);
        let answer = self.database.observe(last.0, answer).await?;
        Ok(answer.rows)
    }
}

/// A statement is sent again, for this reason: its span says so.
fn again(error: &StatementError) {
    telemetry::statement_sent_again(error);
    telemetry::debug!(cause = error.message(), "a statement is sent again");
}
