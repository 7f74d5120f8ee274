//! A Rust worker for tasks that Python sends; `examples/python/producer.py` is the other side.
//!
//! ```text
//! cargo run -p celeriac --example worker
//! ```
//!
//! `REDIS_URL` names the Redis, `redis://localhost:6379/0` by default. Ctrl-C ends it: what runs is finished, what
//! has not begun goes back to its queue.

use std::{error::Error, sync::Arc, time::Duration};

use celeriac::{Exception, RedisBroker, RedisConfig, TaskContext, TaskError, TaskOptions, Worker};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Arguments and results are whatever serde can read and write.
#[derive(Deserialize)]
struct Order {
    number: u64,
    cents: u64,
}

#[derive(Serialize)]
struct Receipt {
    order: u64,
    total: String,
}

/// `invoice.delay({"number": 7, "cents": 1250}, currency="EUR")`
async fn invoice(_: TaskContext, (order, currency): (Order, Option<String>)) -> Result<Receipt, TaskError> {
    let currency = currency.unwrap_or_else(|| "USD".to_owned());
    Ok(Receipt {
        order: order.number,
        total: format!("{}.{:02} {currency}", order.cents / 100, order.cents % 100),
    })
}

/// Fails twice, as what depends on a network does; the third attempt succeeds.
async fn flaky(context: TaskContext, (): ()) -> Result<u32, TaskError> {
    if context.retries < 2 {
        return Err(TaskError::Retry {
            cause: Exception::new("ConnectionError", "nobody answers"),
            countdown: Some(Duration::from_secs(1)),
        });
    }
    Ok(context.retries)
}

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "an example has no configuration but this"
)]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let broker = Arc::new(RedisBroker::new(RedisConfig::new(url))?);
    let worker = Worker::builder(broker)
        // Not the default queue, where a Python worker beside this one would take what it does not know.
        .queue("rust")
        .task(
            "shop.invoice",
            TaskOptions::new()
                // So that Python may pass `currency` by keyword.
                .parameters(&["order", "currency"]),
            invoice,
        )
        .task("shop.flaky", TaskOptions::default(), flaky)
        // Task events, as `celery worker -E` sends them: Flower shows every task.
        .events(true)
        .build();

    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                shutdown.cancel();
            }
        }
    });
    worker.run(shutdown, Duration::from_secs(30)).await?;
    Ok(())
}
