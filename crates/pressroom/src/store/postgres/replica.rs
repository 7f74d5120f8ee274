//! The replica that serves reads by callers without an account, and the watch that decides whether it is
//! usable.
//!
//! The watch checks the replica once a second, independently of requests. While the replica does not answer,
//! lacks a migration or lags too far behind, all reads go to the primary.

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
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{error::SqlState, types::PgLsn};

use self::lag::Lag;
use super::{
    config::PostgresConfig,
    connections::{Connections, Role, SetupError},
    error::StatementError,
    migrations::schema_is_current,
};

/// Time between two checks of the replica.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum wait for a check, or for one article before the primary is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum age of the replica's data.
const MAX_LAG: Duration = Duration::from_secs(30);

/// A replica, and whether it is usable.
pub(super) struct Replica {
    connections: Arc<Connections>,
    usable: Arc<AtomicBool>,
    watch: AbortHandle,
}

impl Replica {
    /// Starts to connect and to watch, and returns at once. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(super) fn open(config: &PostgresConfig, primary: Arc<Connections>) -> Result<Self, SetupError> {
        let connections = Arc::new(Connections::open(config, Role::REPLICA)?);
        let usable = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(primary, Arc::clone(&connections), Arc::clone(&usable)));
        Ok(Self {
            connections,
            usable,
            watch: watch.abort_handle(),
        })
    }

    /// Returns the connections, while the replica is usable.
    pub(super) fn usable(&self) -> Option<&Connections> {
        self.usable.load(Ordering::Relaxed).then_some(&*self.connections)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Returns the answer of the replica to a short read; `None` when the primary must be asked instead.
pub(super) async fn in_short<T>(
    read: impl Future<Output = Result<T, StatementError>>,
) -> Option<Result<T, StatementError>> {
    match timeout(ANSWER_TIMEOUT, read).await {
        Ok(answer) => conclusive(answer),
        Err(_elapsed) => None,
    }
}

/// Returns the answer of the replica; `None` when the primary must be asked instead.
///
/// A cancelled statement is final: it would take too long on the primary as well, and must not add to its
/// load.
pub(super) fn conclusive<T>(answer: Result<T, StatementError>) -> Option<Result<T, StatementError>> {
    match answer {
        Err(error) if !error.is(&SqlState::QUERY_CANCELED) => {
            telemetry::debug!(cause = error.message(), "the replica failed; asking the primary");
            None
        }
        answer => Some(answer),
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

/// Checks the replica once a second, and logs each change.
async fn watch(primary: Arc<Connections>, replica: Arc<Connections>, usable: Arc<AtomicBool>) {
    let mut lag = Lag::default();
    let mut known = None;
    let mut decide = |verdict: Result<(), String>| {
        let good = verdict.is_ok();
        usable.store(good, Ordering::Relaxed);
        if known == Some(good) {
            return;
        }
        known = Some(good);
        match verdict {
            Ok(()) => telemetry::info!("reading from the replica"),
            Err(reason) => telemetry::warn!(reason, "reading from the primary; the replica is not usable"),
        }
    };
    loop {
        let mut check = pin!(without_spans(check(&primary, &replica, &mut lag)));
        let verdict = match timeout(ANSWER_TIMEOUT, &mut check).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => {
                decide(Err("no answer in time".to_owned()));
                // Awaited to its end, when a silent connection is replaced.
                check.await
            }
        };
        decide(verdict);
        sleep(INTERVAL).await;
    }
}

/// Succeeds when the replica answers, has the schema, and does not lag too far behind.
async fn check(primary: &Connections, replica: &Connections, lag: &mut Lag) -> Result<(), String> {
    match schema_is_current(replica).await {
        Ok(true) => {}
        Ok(false) => return Err("its schema is older than this program".to_owned()),
        Err(error) => return Err(error.message()),
    }
    let replayed = match position(replica, &REPLAYED).await {
        Ok(Some(replayed)) => replayed,
        // A server that replays nothing is itself a primary.
        Ok(None) => return Ok(()),
        Err(error) => return Err(error.message()),
    };
    // While the primary is down the lag is unknown, and old data is better than none.
    let written = position(primary, &WRITTEN).await.ok().flatten();
    let behind = lag.after(Instant::now(), written, replayed);
    if behind > MAX_LAG {
        return Err(format!("it is {} s behind", behind.as_secs()));
    }
    Ok(())
}

/// Reads a position in the write-ahead log.
async fn position(server: &Connections, statement: &Statement) -> Result<Option<u64>, StatementError> {
    let answer = server.run(statement, &[]).await?;
    let position: Option<Option<PgLsn>> = answer.first(|row| row.try_get(0))?;
    Ok(position.flatten().map(u64::from))
}
