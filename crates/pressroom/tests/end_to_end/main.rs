//! Real processes against real servers: what a team that runs Pressroom would see.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod command_line;
mod embedded;
mod mail;
mod otlp;
mod process;
mod production;

#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[path = "../support/raw_http.rs"]
mod raw;
#[path = "../support/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
