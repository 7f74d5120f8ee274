//! The replica, which serves reads by callers without an account, and the task that decides whether it is
//! usable.
//!
//! The task checks the replica once a second, independently of requests. While the replica does not respond,
//! lacks a migration or lags too far behind, all reads use the primary.

mod lag;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use telemetry::{Failure as _, Statement, without_spans};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{error::SqlState, types::PgLsn};

use self::lag::Lag;
use super::{
    config::{PostgresConfig, Role},
    connections::{Connections, Primary, SetupError},
    error::StatementError,
    migrations::database_state,
};

/// Interval between checks of the replica.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum wait for a check, or for one article before the primary is queried.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum age of the replica's data.
const MAX_LAG: Duration = Duration::from_secs(30);

/// A replica, and whether it is usable.
pub(super) struct Replica {
    connections: Arc<Connections>,
    usable: Arc<AtomicBool>,
    /// The task that checks the replica, aborted on drop.
    _watch: JoinSet<()>,
}

impl Replica {
    /// Starts connecting and watching in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(super) fn open(config: &PostgresConfig, primary: Arc<Primary>) -> Result<Self, SetupError> {
        let connections = Arc::new(Connections::open(config, Role::Replica)?);
        let usable = Arc::new(AtomicBool::new(false));
        let mut watch_task = JoinSet::new();
        watch_task.spawn(watch(primary, Arc::clone(&connections), Arc::clone(&usable)));
        Ok(Self {
            connections,
            usable,
            _watch: watch_task,
        })
    }

    /// Returns the connections if the replica is usable.
    pub(super) fn usable(&self) -> Option<&Connections> {
        self.usable.load(Ordering::Relaxed).then_some(&*self.connections)
    }
}

/// Returns the replica's result of a short read, or `None` when the primary must be queried instead.
pub(super) async fn short_read<T>(
    read: impl Future<Output = Result<T, StatementError>>,
) -> Option<Result<T, StatementError>> {
    match timeout(RESPONSE_TIMEOUT, read).await {
        Ok(result) => final_result(result),
        Err(_elapsed) => None,
    }
}

/// Returns the replica's result, or `None` when the primary must be queried instead.
///
/// The cancellation of a statement is final, because the statement would also take too long on the primary
/// and add to its load.
pub(super) fn final_result<T>(result: Result<T, StatementError>) -> Option<Result<T, StatementError>> {
    match result {
        Err(error) if !error.is(&SqlState::QUERY_CANCELED) => {
            telemetry::debug!(
                exception.message = error.message(),
                "the replica failed; querying the primary"
            );
            None
        }
        result => Some(result),
    }
}

const WRITTEN: Statement = Statement::new(
    "SELECT",
    "",
    "SELECT pg_current_wal_lsn",
    "SELECT pg_current_wal_lsn()",
);

const REPLAYED: Statement = Statement::new(
    "SELECT",
    "",
    "SELECT pg_last_wal_replay_lsn",
    "SELECT pg_last_wal_replay_lsn()",
);

/// Checks the replica once a second, and logs when it becomes usable or unusable.
async fn watch(primary: Arc<Primary>, replica: Arc<Connections>, usable: Arc<AtomicBool>) {
    let mut lag = Lag::default();
    let mut known = None;
    let mut update = |status: Result<(), String>| {
        usable.store(status.is_ok(), Ordering::Relaxed);
        if known.replace(status.is_ok()) == Some(status.is_ok()) {
            return;
        }
        match status {
            Ok(()) => telemetry::info!("reading from the replica"),
            Err(reason) => telemetry::warn!(reason, "reading from the primary; the replica is not usable"),
        }
    };
    loop {
        let mut check = pin!(without_spans(check(&primary, &replica, &mut lag)));
        let status = match timeout(RESPONSE_TIMEOUT, &mut check).await {
            Ok(status) => status,
            Err(_elapsed) => {
                update(Err("no response in time".to_owned()));
                // The check continues until its statement times out, which replaces a silent connection.
                check.await
            }
        };
        update(status);
        sleep(INTERVAL).await;
    }
}

/// Succeeds when the replica responds, has the current schema, and does not lag too far behind.
async fn check(primary: &Connections, replica: &Connections, lag: &mut Lag) -> Result<(), String> {
    let state = database_state(replica).await.map_err(|error| error.message())?;
    if !state.schema.is_current() {
        return Err("its schema is older than this program".to_owned());
    }
    let replayed = position(replica, &REPLAYED).await;
    let Some(replayed) = replayed.map_err(|error| error.message())? else {
        // A server that replays nothing is itself a primary.
        return Ok(());
    };
    // While the primary is down, the lag is unknown, and old data is better than none.
    let written = position(primary, &WRITTEN).await.ok().flatten();
    let behind = lag.after(Instant::now(), written, replayed);
    if behind > MAX_LAG {
        return Err(format!("it is {} s behind", behind.as_secs()));
    }
    Ok(())
}

/// Reads a position in the write-ahead log.
async fn position(server: &Connections, statement: &Statement) -> Result<Option<u64>, StatementError> {
    let result = server.read(statement, &[]).await?;
    let position: Option<Option<PgLsn>> = result.first(|row| row.try_get(0))?;
    Ok(position.flatten().map(u64::from))
}
