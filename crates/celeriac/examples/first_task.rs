//! A task with its worker and its caller in one program, explained in docs/writing-a-task.md.
//!
//! ```text
//! cargo run -p celeriac --example first_task
//! ```
//!
//! `REDIS_URL` is the address of Redis, `redis://localhost:6379/0` by default.

use std::{error::Error, io::Write, sync::Arc, time::Duration};

use celeriac::{
    Broker, CancellationToken, Client, Exception, RedisBroker, RedisConfig, Signature, TaskContext,
    TaskError, TaskOptions, Worker,
};

/// Counts words. Text without words fails permanently; a temporary error would be a `TaskError::retry`.
async fn count_words(_: TaskContext, (text,): (String,)) -> Result<usize, TaskError> {
    match text.split_whitespace().count() {
        0 => Err(Exception::new("ValueError", "there are no words").into()),
        words => Ok(words),
    }
}

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the example's only setting")]
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
