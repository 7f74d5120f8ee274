//! A Rust producer of tasks for the Python worker in `examples/python/worker.py`.
//!
//! ```text
//! cargo run -p celeriac --example producer
//! ```
//!
//! `REDIS_URL` is the address of Redis, `redis://localhost:6379/0` by default.

use std::{error::Error, io::Write, sync::Arc, time::Duration};

use celeriac::{Client, RedisBroker, RedisConfig, Signature, WaitError, chain, chord};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a task on the queue of the Python worker. A separate queue lets the Rust worker run at the same time.
fn task(name: &str) -> Signature {
    Signature::new(name).queue("python")
}

fn add(a: i64, b: i64) -> Signature {
    task("shop.add").arg(a).arg(b)
}

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the example's only setting")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let client = Client::new(Arc::new(RedisBroker::new(RedisConfig::new(url))?));
    let mut out = std::io::stdout();

    let id = client.send(add(2, 3).countdown(Duration::from_secs(1))).await?;
    writeln!(out, "2 + 3 = {}", client.wait(&id, TIMEOUT).await?)?;

    // Each task receives the result of the previous one as its first argument.
    let chained = chain([add(1, 2), task("shop.add").arg(10)]);
    let result = client.apply(chained).await?;
    writeln!(out, "1 + 2 + 10 = {}", result.wait(TIMEOUT).await?)?;

    // The last task receives the results of all others.
    let sums = chord((1..=10).map(|n| add(n, n)), task("shop.total"));
    let result = client.apply(sums).await?;
    writeln!(out, "2 + 4 + ... + 20 = {}", result.wait(TIMEOUT).await?)?;

    let id = client.send(task("shop.broken")).await?;
    match client.wait(&id, TIMEOUT).await {
        Err(WaitError::Failed { exception, .. }) => {
            writeln!(
                out,
                "shop.broken raised {}: {}",
                exception.type_name, exception.message
            )?;
        }
        other => writeln!(out, "shop.broken ended unexpectedly: {other:?}")?,
    }
    Ok(())
}
