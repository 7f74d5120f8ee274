//! A Rust producer for tasks that a Python worker runs; `examples/python/worker.py` is the other side.
//!
//! ```text
//! cargo run -p celeriac --example producer
//! ```
//!
//! `REDIS_URL` is the address of Redis, `redis://localhost:6379/0` by default.

use std::{error::Error, io::Write, sync::Arc, time::Duration};

use celeriac::{Client, RedisBroker, RedisConfig, Signature, WaitError, chain, chord};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a task of the Python worker, which has a queue of its own, so that the Rust worker can run beside it.
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
