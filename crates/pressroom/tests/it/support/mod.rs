//! Servers, clients and folders that tests share.

pub mod api;
pub mod mail;
pub mod otlp;
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

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
