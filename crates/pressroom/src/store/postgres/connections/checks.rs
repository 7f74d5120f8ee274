//! A thread and a connection for health checks. On the threads of an overloaded process, a check would exceed its time
//! limit even though the database responds.

use std::{sync::Arc, time::Duration};

use telemetry::{ConnectionCounts, Statement, opentelemetry::context::FutureExt as _};
use tokio::runtime::{Builder, Runtime};

use super::{
    connector::{Connector, Settings},
    pipeline::{self, Pipeline},
    result::StatementResult,
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// Name in metrics.
pub(super) const NAME: &str = "postgres.checks";

/// No other statement waits behind a check, so it may wait for a lock.
const SETTINGS: Settings = Settings {
    lock_timeout: Duration::from_secs(1),
    ..pipeline::SETTINGS
};

pub(super) struct Checks {
    connection: Pipeline,
    /// `None` during shutdown.
    thread: Option<Runtime>,
}

impl Checks {
    /// Starts the thread, which opens the connection. Returns `None` if the system does not allow another thread.
    pub(super) fn start(connector: &Connector, types: Option<&Arc<TypeCache>>) -> Option<Self> {
        let mut thread = Builder::new_multi_thread();
        let thread = thread
            .worker_threads(1)
            .thread_name("database-check")
            .enable_all();
        let thread = thread.build().ok()?;
        let connector = connector.with(SETTINGS).named(NAME);
        let connection = {
            let _entered = thread.enter();
            Pipeline::new(NAME, &connector, types, 1, &[])
        };
        Some(Self {
            connection,
            thread: Some(thread),
        })
    }

    /// Runs `check` on the thread, in the current telemetry context.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        check: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let checked = match &self.thread {
            Some(thread) => thread.spawn(check.with_current_context()).await.ok(),
            None => None,
        };
        checked.unwrap_or_else(|| Err(StatementError::unavailable("the check ended without a result")))
    }

    /// Runs a statement of a check.
    pub(super) async fn read(&self, statement: &Statement) -> Result<StatementResult> {
        self.connection.run(statement, &[]).await
    }

    pub(super) fn reconnect(&self) {
        self.connection.reconnect();
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        self.connection.counts()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Waiting for the thread is not allowed in async code.
            thread.shutdown_background();
        }
    }
}
