//! Connections to one server. [`Connections`] and [`Primary`] run every [`Statement`], and record its span and
//! duration. Anything else that could run SQL is private to this module, and Clippy rejects it elsewhere.
//!
//! The connections are divided into shares, so that a slow statement or one that waits for a lock delays only
//! statements of its own kind. Reads by key use a [`pipeline`] of connections, and health checks use a connection on a
//! separate thread; each other share is a [`pool`]:
//!
//! - `writes`: statements and transactions of requests, which wait only briefly for a lock
//! - `contended`: writes that met a lock, which wait longer for it
//! - `lists` and `searches`: reads of many rows; `lists` also serves reads of large values
//! - `maintenance`: the outbox, deliveries, counts and purges
#![expect(
    clippy::disallowed_methods,
    reason = "statements are sent here, each within its span"
)]

mod checks;
mod connection;
mod connector;
mod groups;
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
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use telemetry::{Database, Returned, Statement};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

pub use self::connector::SetupError;
use self::{
    checks::Checks,
    locked_rows::{LockedRows, Row},
    members::Share,
    pipeline::Pipeline,
    pool::Pool,
    retry::record_retry,
    transaction::Step,
    types::TypeCache,
};
pub(super) use self::{
    connector::{Connector, Driver, Settings},
    groups::{Call, Groups},
    result::StatementResult,
    statement::Params,
};
use super::{
    config::{PostgresConfig, Role},
    error::{Result, StatementError},
};
use crate::{outage::OutageLog, store::StoreError};

const LIST_SETTINGS: Settings = Settings {
    statement_timeout: Duration::from_secs(4),
    lock_timeout: Duration::from_secs(1),
    scans: false,
};
const SEARCH_SETTINGS: Settings = Settings {
    scans: true,
    ..LIST_SETTINGS
};
/// Settings of the first attempt of a write.
const WRITE_SETTINGS: Settings = Settings {
    statement_timeout: Duration::from_millis(1_500),
    lock_timeout: Duration::from_millis(100),
    scans: false,
};
/// Settings of a write that met a lock.
const CONTENDED_SETTINGS: Settings = Settings {
    lock_timeout: Duration::from_secs(1),
    ..WRITE_SETTINGS
};
const MAINTENANCE_SETTINGS: Settings = Settings {
    statement_timeout: Duration::from_secs(10),
    lock_timeout: Duration::from_secs(1),
    scans: false,
};

/// Connections for reads, to the primary or a replica.
pub(super) struct Connections {
    database: Database,
    connector: Connector,
    /// Set when statements are not prepared on the connections.
    types: Option<Arc<TypeCache>>,
    reads: Arc<Pipeline>,
    /// Opened by the first health check.
    checks: Arc<OnceLock<Option<Checks>>>,
    lists: Pool,
    searches: Pool,
    /// Rows and tables that statements found locked.
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
        let connector = Connector::new(config, role, pipeline::SETTINGS)?.named(reads_name);
        let types = (!config.prepared_statements).then(|| Arc::new(TypeCache::new(connector.clone())));
        let reads = Pipeline::new(
            reads_name,
            &connector,
            types.as_ref(),
            config.sizes.reads,
            &config.runtimes,
        );
        let database = Database::new("postgresql", config.database(), config.server());
        let pool = |name, size, queue, settings| {
            let share = Share {
                name,
                size,
                queue,
                settings,
            };
            Pool::new(share, &connector, types.as_ref(), &database)
        };
        let connections = Self {
            reads: Arc::new(reads),
            checks: Arc::default(),
            lists: pool(lists_name, config.sizes.lists, 256, LIST_SETTINGS).open_early(),
            searches: pool(searches_name, config.sizes.searches, 128, SEARCH_SETTINGS).open_early(),
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

    /// Runs a read by key, which must neither scan nor lock rows, and whose result is small.
    pub(super) async fn read(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.run_read(statement, params));
        self.observe(statement, result).await
    }

    /// Like [`Self::read`], without a span.
    pub(super) async fn run_read(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let table = || self.locked.row(statement, ());
        if self.locked.is_empty() || !self.locked.contains(table()) {
            match self.reads.run(statement, params).await {
                Err(error) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => record_retry(&error),
                result => return result,
            }
            self.locked.insert(table());
        }
        // The table is locked. Waiting on a shared connection would delay reads of other tables.
        let result = Box::pin(self.lists.run(&self.database, statement, params)).await;
        if result.is_ok() {
            self.locked.remove(table());
        }
        result
    }

    /// Runs a statement of a health check, on the connection for checks if [`Primary::check`] has opened it.
    pub(super) async fn read_for_check(&self, statement: &Statement) -> Result<StatementResult> {
        let Some(Some(checks)) = self.checks.get() else {
            return self.read(statement, &[]).await;
        };
        let result = pin!(checks.read(statement));
        self.observe(statement, result).await
    }

    /// Runs a read by key whose result may be large. On shared connections, many results would wait in memory for their
    /// callers, and delay small ones.
    pub(super) async fn read_large(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let result = pin!(async {
            let _permit = self.lists.half(Instant::now()).await?;
            self.lists.run(&self.database, statement, params).await
        });
        self.observe(statement, result).await
    }

    /// Runs a read of many rows in the order of an index, such as a list.
    pub(super) async fn list(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.lists.run(&self.database, statement, params));
        self.observe(statement, result).await
    }

    /// Runs a read that may scan a table.
    pub(super) async fn search(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let result = pin!(self.searches.run(&self.database, statement, params));
        self.observe(statement, result).await
    }

    /// Runs `work`, and records its span and duration and whether the database was available.
    async fn observe<T: Returned>(
        &self,
        statement: &Statement,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
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
        if let Some(Some(checks)) = self.checks.get() {
            checks.reconnect();
        }
        self.lists.reconnect();
        self.searches.reconnect();
    }
}

/// All connections to the primary.
pub(super) struct Primary {
    connections: Connections,
    writes: Pool,
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
    /// Starts connecting in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when a certificate cannot be read.
    pub(super) fn open(config: &PostgresConfig) -> Result<Self, SetupError> {
        let connections = Connections::open(config, Role::Primary)?;
        let pool = |name, size, queue, settings| {
            let share = Share {
                name,
                size,
                queue,
                settings,
            };
            let types = connections.types.as_ref();
            Pool::new(share, &connections.connector, types, &connections.database)
        };
        let sizes = config.sizes;
        Ok(Self {
            writes: pool("postgres.writes", sizes.writes, 512, WRITE_SETTINGS).open_early(),
            contended: pool("postgres.contended", sizes.contended, 16, CONTENDED_SETTINGS),
            maintenance: pool(
                "postgres.maintenance",
                sizes.maintenance,
                1024,
                MAINTENANCE_SETTINGS,
            )
            .open_early(),
            read_only: AtomicBool::new(false),
            connections,
        })
    }

    /// Runs a health check, on a separate thread if the system allows one.
    pub(super) async fn check<T: Send + 'static>(
        &self,
        check: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let checks = self.checks.get_or_init(|| {
            let checks = Arc::downgrade(&self.checks);
            self.database.observe_connections(checks::NAME, move || {
                let checks = checks.upgrade();
                let checks = checks.as_ref().and_then(|checks| checks.get()?.as_ref());
                checks.map(Checks::counts).unwrap_or_default()
            });
            Checks::start(&self.connector, self.types.as_ref())
        });
        match checks {
            Some(checks) => checks.run(check).await,
            None => check.await,
        }
    }

    /// Runs a write of a request. `row` identifies the row whose lock it may have to wait for.
    pub(super) async fn write(
        &self,
        row: impl Hash,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        self.transaction(row, &[], (statement, params)).await
    }

    /// Runs `before` and then `last` in one transaction, and returns the result of `last`. `row` identifies
    /// the row whose lock it may have to wait for.
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
        let result = pin!(self.run_write(row, before, last, Instant::now()));
        self.observe(last.0, result).await
    }

    /// Runs a statement that no request waits for.
    pub(super) async fn maintain(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let result = pin!(self.run_maintenance(statement, params));
        self.observe(statement, result).await
    }

    /// Like [`Self::maintain`], without a span.
    pub(super) async fn run_maintenance(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<StatementResult> {
        let result = self.maintenance.run(&self.database, statement, params).await;
        if statement.operation != "SELECT" {
            self.watch_fail_over(&result);
        }
        result
    }

    /// Runs a statement that serves the writes of several requests, without a span. Unlike [`Self::write`], does not
    /// wait longer for a lock: the caller then runs each write by itself.
    pub(super) async fn run_group_of_writes(
        &self,
        statement: &Statement,
        params: Params<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
        let last = (statement, params);
        let result = self.writes.transaction(&self.database, &[], last, start).await;
        self.watch_fail_over(&result);
        result
    }

    /// Runs a write of a request, without a span. `start` is the time of the request.
    pub(super) async fn run_single_write(
        &self,
        row: impl Hash,
        statement: &Statement,
        params: Params<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
        let row = self.locked.row(statement, row);
        self.run_write(row, &[], (statement, params), start).await
    }

    /// Whether a write of this row has recently met a lock.
    pub(super) fn is_locked(&self, row: impl Hash, statement: &Statement) -> bool {
        !self.locked.is_empty() && self.locked.contains(self.locked.row(statement, row))
    }

    async fn run_write(
        &self,
        row: Row,
        before: &[Step<'_>],
        last: Step<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
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

    /// Runs a write of a row that is not known to be locked. If another row of the same statement is, the write may
    /// meet a lock too, and leaves half of the connections to other statements.
    async fn attempt_write(
        &self,
        row: Row,
        before: &[Step<'_>],
        last: Step<'_>,
        start: Instant,
    ) -> Result<StatementResult> {
        let _permit = if self.locked.contains_similar(row) {
            Some(self.writes.half(start).await?)
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
