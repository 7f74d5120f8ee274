//! A task of one's own, with its worker and its caller in one program; docs/writing-a-task.md tells about it.
//!
//! ```text
//! cargo run -p celeriac --example first_task
//! ```
//!
//! `REDIS_URL` names the Redis, `redis://localhost:6379/0` by default.

use std::{error::Error, io::Write, sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, Exception, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions,
    Worker,
};
use tokio_util::sync::CancellationToken;

/// Counts words. A text without any is refused for good; whatever may pass would be `TaskError::Retry`.
async fn count_words(_: TaskContext, (text,): (String,)) -> Result<usize, TaskError> {
    match text.split_whitespace().count() {
        0 => Err(TaskError::Failed(Exception::new(
            "ValueError",
            "there are no words",
        ))),
        words => Ok(words),
    }
}

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "an example has no configuration but this"
)]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(RedisConfig::new(url))?);

    let options = TaskOptions::new()
        .parameters(&["text"])
        .time_limit(Duration::from_secs(60));
    let worker = Worker::builder(broker.clone())
        .queue("words")
        .task("texts.count_words", options, count_words)
        .build();
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(worker.run(shutdown.clone(), Duration::from_secs(30)));

    let client = Client::new(broker);
    let task = Signature::new("texts.count_words").queue("words");
    let id = client.send(task.arg("four words of text")).await?;
    let words = client.wait(&id, Duration::from_secs(30)).await?;
    writeln!(std::io::stdout(), "{words} words")?;

    shutdown.cancel();
    working.await??;
    Ok(())
}
