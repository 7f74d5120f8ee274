//! A Rust worker for the tasks that `examples/python/producer.py` sends.
//!
//! ```text
//! cargo run -p celeriac --example worker
//! ```
//!
//! `REDIS_URL` is the address of Redis, `redis://localhost:6379/0` by default. Ctrl-C shuts the worker down: running tasks
//! finish, and waiting tasks return to their queue.

use std::{error::Error, sync::Arc, time::Duration};

use celeriac::{
    CancellationToken, Exception, RedisBroker, RedisConfig, TaskContext, TaskError, TaskOptions, Worker,
};
use serde::{Deserialize, Serialize};

/// Order in the format of the Python producer. Arguments and results can be of any type that serde supports.
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

/// Fails twice, as a task that uses the network might, and succeeds on the third attempt.
async fn flaky(context: TaskContext, (): ()) -> Result<u32, TaskError> {
    if context.retries < 2 {
        return Err(TaskError::retry_in(
            Exception::new("ConnectionError", "connection refused"),
            Duration::from_secs(1),
        ));
    }
    Ok(context.retries)
}

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the example's only setting")]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let broker = Arc::new(RedisBroker::new(RedisConfig::new(url))?);
    let worker = Worker::builder(broker)
        // A separate queue: on the default queue, a Python worker would receive tasks that it does not know.
        .queue("rust")
        .task(
            "shop.invoice",
            // Lets Python pass `currency` by keyword.
            TaskOptions::new().parameters(&["order", "currency"]),
            invoice,
        )
        .task("shop.flaky", TaskOptions::new(), flaky)
        // Like `celery worker -E`: Flower shows every task.
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
