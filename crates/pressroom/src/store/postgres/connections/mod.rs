//! Connections to one server. [`Connections`] runs every [`Statement`], and records its span and duration.
//! Anything else that could run SQL is private to this module, and Clippy rejects it elsewhere.
//!
//! Single statements use a [`pipeline`] of shared connections. Transactions and slow statements use a
//! [`pool`].
#![expect(
    clippy::disallowed_methods,
    reason = "statements are sent here, each within its span"
)]

mod connector;
mod pipeline;
mod pipelined;
mod pool;
mod result;
mod retry;
mod statement;
mod types;

use std::{pin::pin, sync::Arc};

use telemetry::{Database, Statement};

pub use self::connector::SetupError;
pub(super) use self::{connector::Connector, result::StatementResult, statement::Params};
use self::{
    pipeline::Pipeline,
    pool::{Pool, Step},
    types::TypeCache,
};
use super::{config::PostgresConfig, error::Result};

/// Role of a server, which determines the names of its connection pools in metrics and logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    pipeline: &'static str,
    pool: &'static str,
}

impl Role {
    pub(super) const PRIMARY: Self = Self {
        pipeline: "postgres.pipeline",
        pool: "postgres.pool",
    };
    pub(super) const REPLICA: Self = Self {
        pipeline: "postgres.replica.pipeline",
        pool: "postgres.replica.pool",
    };
}

/// The connections of a store.
pub(super) struct Connections {
    database: Database,
    pipeline: Arc<Pipeline>,
    pool: Arc<Pool>,
}

impl Connections {
    /// Starts connecting in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(super) fn open(config: &PostgresConfig, role: Role) -> Result<Self, SetupError> {
        let single = Connector::new(config, pipeline::STATEMENT_TIMEOUT, Some(role.pipeline))?;
        let slow = Connector::new(config, pool::SLOW_TIMEOUT, Some(role.pool))?;
        let types = (!config.prepared_statements).then(|| Arc::new(TypeCache::new(single.clone())));
        let pipeline = Pipeline::new(role.pipeline, &single, types.as_ref(), config.pipeline_size);
        let pipeline = Arc::new(pipeline);
        let pool = Arc::new(Pool::new(role.pool, slow, types, config.pool_size)?);
        let database = Database::new("postgresql", config.database(), config.server());
        // Weak references, because metrics outlive the store and must not keep its connections open.
        let (pipelined, pooled) = (Arc::downgrade(&pipeline), Arc::downgrade(&pool));
        database.observe_connections(role.pipeline, move || {
            let pipeline = pipelined.upgrade();
            pipeline.map(|pipeline| pipeline.counts()).unwrap_or_default()
        });
        database.observe_connections(role.pool, move || {
            let pool = pooled.upgrade();
            pool.map(|pool| pool.counts()).unwrap_or_default()
        });
        Ok(Self {
            database,
            pipeline,
            pool,
        })
    }

    /// Runs a single statement.
    pub(super) async fn run(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.pipeline.run(statement, params));
        self.database.observe(statement, result).await
    }

    /// Runs a slow statement.
    pub(super) async fn run_slow(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let result = pin!(self.pool.run_slow(statement, params));
        self.database.observe(statement, result).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`.
    ///
    /// The span of `last` covers the whole transaction, including failures of `BEGIN` and `COMMIT`; the spans
    /// of the statements before it are its children.
    pub(super) async fn transaction(&self, before: &[Step<'_>], last: Step<'_>) -> Result<StatementResult> {
        let result = pin!(self.pool.transaction(&self.database, before, last));
        self.database.observe(last.0, result).await
    }
}
