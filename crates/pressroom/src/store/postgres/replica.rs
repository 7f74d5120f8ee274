//! The replica that readers without an account are sent to, and the watch that decides whether it
//! may be asked.
//!
//! A request never finds out for itself that a replica is away: the watch asks it once a second,
//! beside all requests, and while it does not answer, lacks a migration or is far behind, everything
//! goes to the primary.

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
    SetupError,
    config::PostgresConfig,
    connections::{Connections, Role},
    error::StatementError,
    migrations::schema_is_current,
};

/// How often the replica is asked how it is.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to say so, or to give one article. Then the primary is asked.
const PATIENCE: Duration = Duration::from_millis(500);
/// How old an answer of the replica may be.
const MAX_LAG: Duration = Duration::from_secs(30);

/// A replica, and whether it may be asked now.
pub(super) struct Replica {
    connections: Arc<Connections>,
    usable: Arc<AtomicBool>,
    watch: AbortHandle,
}

impl Replica {
    /// Begins to connect and to watch, and returns at once; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub(super) fn open(config: &PostgresConfig, primary: Arc<Connections>) -> Result<Self, SetupError> {
        let connections = Arc::new(Connections::open(config, Role::Replica)?);
        let usable = Arc::new(AtomicBool::new(false));
        let watch = tokio::spawn(watch(primary, Arc::clone(&connections), Arc::clone(&usable)));
        Ok(Self {
            connections,
            usable,
            watch: watch.abort_handle(),
        })
    }

    /// The connections to a replica that may be asked now.
    pub(super) fn usable(&self) -> Option<&Connections> {
        self.usable.load(Ordering::Relaxed).then_some(&*self.connections)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The answer of a replica to a short read; `None` when the primary has to be asked instead.
pub(super) async fn in_short<T>(
    read: impl Future<Output = Result<T, StatementError>>,
) -> Option<Result<T, StatementError>> {
    match timeout(PATIENCE, read).await {
        Ok(answer) => conclusive(answer),
        Err(_elapsed) => None,
    }
}

/// The answer of a replica; `None` when the primary has to be asked instead. What took too long on
/// the one would on the other, which is not to be given that load as well.
pub(super) fn conclusive<T>(answer: Result<T, StatementError>) -> Option<Result<T, StatementError>> {
    match answer {
        Err(error) if !error.is(&SqlState::QUERY_CANCELED) => {
            telemetry::debug!(
                cause = error.message(),
                "the replica failed, the primary is asked"
            );
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

/// Decides once a second, for ever, and says so whenever the decision changes.
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
            Ok(()) => telemetry::info!("the replica is read from"),
            Err(reason) => telemetry::warn!(reason, "the replica is not read from, the primary is"),
        }
    };
    loop {
        let mut check = pin!(without_spans(check(&primary, &replica, &mut lag)));
        let verdict = match timeout(PATIENCE, &mut check).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => {
                decide(Err("no answer in time".to_owned()));
                // To its end: that is when a silent connection is given up.
                check.await
            }
        };
        decide(verdict);
        sleep(INTERVAL).await;
    }
}

/// Whether the replica answers, has the schema, and is not far behind.
async fn check(primary: &Connections, replica: &Connections, lag: &mut Lag) -> Result<(), String> {
    match schema_is_current(replica).await {
        Ok(true) => {}
        Ok(false) => return Err("its schema is older than this program".to_owned()),
        Err(error) => return Err(error.message()),
    }
    let replayed = match position(replica, &REPLAYED).await {
        Ok(Some(replayed)) => replayed,
        // One that replays nothing is no replica but a server that takes writes itself.
        Ok(None) => return Ok(()),
        Err(error) => return Err(error.message()),
    };
    // Without the primary nobody knows how far it got, and an old answer is better than none.
    let written = position(primary, &WRITTEN).await.ok().flatten();
    let behind = lag.after(Instant::now(), written, replayed);
    if behind > MAX_LAG {
        return Err(format!("it is {} s behind", behind.as_secs()));
    }
    Ok(())
}

/// A place in the write-ahead log.
async fn position(server: &Connections, statement: &Statement) -> Result<Option<u64>, StatementError> {
    let Some(row) = server.row(statement, &[]).await? else {
        return Ok(None);
    };
    let position: Option<PgLsn> = row.try_get(0)?;
    Ok(position.map(u64::from))
}
