//! Servers, clients and temporary folders for the tests.

pub mod api;
pub mod mail;
pub mod otlp;
pub mod page;
pub mod pgbouncer;
pub mod postgres;
pub mod postgres_proxy;
pub mod postgres_server;
pub mod process;
pub mod raw;
pub mod redis_server;
pub mod sqlite;
pub mod webhook;

use std::time::{Duration, Instant};

/// Time limit of [`eventually`].
const TIMEOUT: Duration = Duration::from_secs(60);

/// Polls `check` until it returns a value. Panics after a minute; `what` names the expected event.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
