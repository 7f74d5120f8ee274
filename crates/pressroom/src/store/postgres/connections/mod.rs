//! Connections to one server. [`Connections`] and [`Primary`] run every [`Statement`], and record its span and
//! duration. Anything else that could run SQL is private to this module, and Clippy rejects it elsewhere.
//!
//! The connections are divided into shares, so that a statement that waits for a lock or takes long delays only
//! statements of its own kind. Reads by key use a [`pipeline`] of connections; each other share is a [`pool`]:
//!
//! - `writes`: statements and transactions of requests, which wait only briefly for a lock
//! - `contended`: writes that met a lock, and wait longer for it
//! - `lists` and `searches`: reads of many rows
//! - `maintenance`: the outbox, deliveries, counts and purges
#![expect(
    clippy::disallowed_methods,
    reason = "statements are sent here, each within its span"
)]

mod connection;
mod connector;
mod locked_rows;
mod members;
mod pipeline;
mod pool;
mod result;
mod retry;
mod statement;
mod transaction;
mod types;

use std::{
    hash::Hash,
    ops::Deref,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use telemetry::{Database, Statement};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_postgres::error::SqlState;

pub use self::connector::SetupError;
pub(super) use self::{
    connector::{Connector, Driver, Timeouts},
    result::StatementResult,
    statement::Params,
};
use self::{
    locked_rows::{LockedRows, Row},
    members::Share,
    pipeline::Pipeline,
    pool::{CHECKOUT_TIMEOUT, Pool},
    retry::record_retry,
    transaction::Step,
    types::TypeCache,
};
use super::{
    config::{PostgresConfig, Role},
    error::{Result, StatementError},
};
use crate::{outage::OutageLog, store::StoreError};

/// Time-outs of lists and searches.
const READ_TIMEOUTS: Timeouts = Timeouts {
    statement: Duration::from_secs(4),
    lock: Duration::from_secs(1),
};
/// Time-outs of the first attempt of a write.
const WRITE_TIMEOUTS: Timeouts = Timeouts {
    statement: Duration::from_millis(1_500),
    lock: Duration::from_millis(100),
};
/// Time-outs of a write that met a lock.
const CONTENDED_TIMEOUTS: Timeouts = Timeouts {
    lock: Duration::from_secs(1),
    ..WRITE_TIMEOUTS
};
const MAINTENANCE_TIMEOUTS: Timeouts = Timeouts {
    statement: Duration::from_secs(10),
    lock: Duration::from_secs(1),
};

/// Connections for reads, of the primary or of a replica.
pub(super) struct Connections {
    database: Database,
    connector: Connector,
    /// Set when statements are not prepared on the connections.
    types: Option<Arc<TypeCache>>,
    reads: Arc<Pipeline>,
    lists: Pool,
    searches: Pool,
    /// Rows and tables that statements met locked.
    locked: LockedRows,
    /// `None` for a replica, whose outages are logged by the task that watches it.
    outages: Option<Arc<OutageLog>>,
}

impl Connections {
    /// Starts connecting in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when a certificate cannot be read.
    pub(super) fn open(config: &PostgresConfig, role: Role) -> Result<Self, SetupError> {
        config.log_ignored_parameters();
        let [reads_name, lists_name, searches_name] = match role {
            Role::Primary => ["postgres.reads", "postgres.lists", "postgres.searches"],
            Role::Replica => [
                "postgres.replica.reads",
                "postgres.replica.lists",
                "postgres.replica.searches",
            ],
        };
        let connector = Connector::new(config, role, pipeline::TIMEOUTS)?.named(reads_name);
        let types = (!config.prepared_statements).then(|| Arc::new(TypeCache::new(connector.clone())));
        let reads = Pipeline::new(reads_name, &connector, types.as_ref(), config.sizes.reads);
        let database = Database::new("postgresql", config.database(), config.server());
        let pool = |name, size, queue| {
            let share = Share {
                name,
                size,
                queue,
                timeouts: READ_TIMEOUTS,
            };
            Pool::new(share, &connector, types.as_ref(), &database)
        };
        let connections = Self {
            reads: Arc::new(reads),
            lists: pool(lists_name, config.sizes.lists, 256).open_early(),
            searches: pool(searches_name, config.sizes.searches, 32).open_early(),
            locked: LockedRows::default(),
            outages: match role {
                Role::Primary => Some(OutageLog::new("database unavailable", "database available again")),
                Role::Replica => None,
            },
            database,
            connector,
            types,
        };
        // A weak reference, because metrics outlive the store and must not keep its connections open.
        let reads = Arc::downgrade(&connections.reads);
        connections.database.observe_connections(reads_name, move || {
            let reads = reads.upgrade();
            reads.map(|reads| reads.counts()).unwrap_or_default()
        });
        Ok(connections)
    }

    /// Runs a read by key, which must neither scan nor lock rows.
    pub(super) async fn read(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(async {
            let table = || self.locked.row(statement, ());
            if self.locked.is_empty() || !self.locked.contains(table()) {
                match self.reads.run(statement, params).await {
                    Err(error) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => record_retry(&error),
                    result => return result,
                }
                self.locked.insert(table());
            }
            // The table is locked. To wait on a shared connection would delay reads of other tables.
            let result = Box::pin(self.lists.run(&self.database, statement, params)).await;
            if result.is_ok() {
                self.locked.remove(table());
            }
            result
        });
        self.observe(statement, result).await
    }

    /// Runs a read of many rows in a known order, as a list does.
    pub(super) async fn list(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.lists.run(&self.database, statement, params));
        self.observe(statement, result).await
    }

    /// Runs a read that may scan a table.
    pub(super) async fn search(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.searches.run(&self.database, statement, params));
        self.observe(statement, result).await
    }

    /// Records a statement's span and duration, and whether the database was available.
    async fn observe(
        &self,
        statement: &Statement,
        work: impl Future<Output = Result<StatementResult>>,
    ) -> Result<StatementResult> {
        let result = self.database.observe(statement, work).await;
        if let Some(outages) = &self.outages {
            match &result {
                Err(StatementError {
                    error: StoreError::Unavailable(reason),
                    ..
                }) => outages.record_failure(statement.summary, reason),
                _ => outages.record_success(statement.summary),
            }
        }
        result
    }

    fn reconnect(&self) {
        self.reads.reconnect();
        self.lists.reconnect();
        self.searches.reconnect();
    }
}

/// All connections to the primary.
pub(super) struct Primary {
    connections: Connections,
    writes: Pool,
    /// Permits for writes that may meet a lock, because another row of the same statement was locked recently. The
    /// other connections of `writes` remain for other statements.
    risky: Semaphore,
    contended: Pool,
    maintenance: Pool,
    /// Whether the last write found a read-only server.
    read_only: AtomicBool,
}

impl Deref for Primary {
    type Target = Connections;

    fn deref(&self) -> &Connections {
        &self.connections
    }
}

impl Primary {
    /// Starts to connect, without waiting. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when a certificate cannot be read.
    pub(super) fn open(config: &PostgresConfig) -> Result<Self, SetupError> {
        let connections = Connections::open(config, Role::Primary)?;
        let pool = |name, size, queue, timeouts| {
            let share = Share {
                name,
                size,
                queue,
                timeouts,
            };
            let types = connections.types.as_ref();
            Pool::new(share, &connections.connector, types, &connections.database)
        };
        let sizes = config.sizes;
        Ok(Self {
            risky: Semaphore::new((sizes.writes / 2).max(1)),
            writes: pool("postgres.writes", sizes.writes, 512, WRITE_TIMEOUTS).open_early(),
            contended: pool("postgres.contended", sizes.contended, 16, CONTENDED_TIMEOUTS),
            maintenance: pool(
                "postgres.maintenance",
                sizes.maintenance,
                1024,
                MAINTENANCE_TIMEOUTS,
            )
            .open_early(),
            read_only: AtomicBool::new(false),
            connections,
        })
    }

    /// Runs a write of a request. `row` identifies the row that it may have to wait for.
    pub(super) async fn write(
        &self,
        row: impl Hash,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        self.transaction(row, &[], (statement, params)).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`. `row` identifies
    /// the row that it may have to wait for.
    ///
    /// The span of `last` covers the whole transaction, including failures of `BEGIN` and `COMMIT`; the spans
    /// of the statements before it are its children.
    pub(super) async fn transaction(
        &self,
        row: impl Hash,
        before: &[Step<'_>],
        last: Step<'_>,
    ) -> Result<StatementResult> {
        let row = self.locked.row(last.0, row);
        let result = pin!(self.run_write(row, before, last));
        self.observe(last.0, result).await
    }

    /// Runs a statement that no request waits for.
    pub(super) async fn maintain(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let result = pin!(async {
            let result = self.maintenance.run(&self.database, statement, params).await;
            if statement.operation != "SELECT" {
                self.watch_fail_over(&result);
            }
            result
        });
        self.observe(statement, result).await
    }

    async fn run_write(&self, row: Row, before: &[Step<'_>], last: Step<'_>) -> Result<StatementResult> {
        let start = Instant::now();
        if !self.locked.contains(row) {
            match self.attempt_write(row, before, last, start).await {
                Err(error) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => record_retry(&error),
                result => {
                    self.watch_fail_over(&result);
                    return result;
                }
            }
            self.locked.insert(row);
        }
        let result = self.contended.transaction(&self.database, before, last, start);
        let result = Box::pin(result).await;
        match &result {
            Err(error) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                self.locked.insert(row);
                self.contended.timed_out();
            }
            Err(_) => {}
            Ok(_) => self.locked.remove(row),
        }
        self.watch_fail_over(&result);
        result
    }

    /// Runs a write of a row that is not known to be locked.
    async fn attempt_write(
        &self,
        row: Row,
        before: &[Step<'_>],
        last: Step<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
        let _permit = if self.locked.contains_similar(row) {
            let Ok(permit) = timeout_at(start + CHECKOUT_TIMEOUT, self.risky.acquire()).await else {
                self.writes.timed_out();
                return Err(StatementError::unavailable(
                    "no connection became available in time",
                ));
            };
            permit.ok()
        } else {
            None
        };
        self.writes.transaction(&self.database, before, last, start).await
    }

    /// Looks up the server again when writes succeed after the server was read-only: it may have been a standby,
    /// to which other connections still lead.
    fn watch_fail_over(&self, result: &Result<StatementResult>) {
        match result {
            Err(error) if error.is(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
                self.read_only.store(true, Ordering::Relaxed);
            }
            Ok(_)
                if self.read_only.load(Ordering::Relaxed)
                    && self.read_only.swap(false, Ordering::Relaxed) =>
            {
                telemetry::info!("the database accepts writes again; replacing its connections");
                self.connections.reconnect();
                for pool in [&self.writes, &self.contended, &self.maintenance] {
                    pool.reconnect();
                }
            }
            _ => {}
        }
    }
}
