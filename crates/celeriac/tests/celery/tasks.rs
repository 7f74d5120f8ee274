//! A Rust worker with the tasks of `python/app.py`: either side can run the tasks that the other sends.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Exception, TaskContext, TaskError, TaskOptions, Worker, WorkerBuilder};
use serde_json::{Value, json};

use crate::support::Journal;

fn exception(module: &str, type_name: &str, message: &str) -> Exception {
    Exception::new(type_name, message).module(module)
}

/// Builds a worker with the tasks `add`, `echo` (returns its argument), `note` (writes its argument),
/// `broken` (raises an exception that only `app.py` defines), `key_error` (raises a built-in exception),
/// `describe` (requests a retry in two seconds), `flaky` (fails until the given attempt) and `sleeps` (for
/// the given seconds).
pub fn worker(broker: Arc<dyn Broker>, journal: &Journal) -> WorkerBuilder {
    let options = |parameters| TaskOptions::new().track_started(true).parameters(parameters);
    let journal = journal.clone();
    Worker::builder(broker)
        .hostname("celery@rust")
        .task(
            "add",
            options(&["a", "b"]),
            async |_: TaskContext, (a, b): (i64, i64)| Ok::<_, TaskError>(a + b),
        )
        .task(
            "echo",
            options(&["value"]),
            async |_: TaskContext, (value,): (Value,)| Ok::<_, TaskError>(value),
        )
        .task(
            "note",
            options(&["line"]),
            move |_: TaskContext, (line,): (String,)| {
                let journal = journal.clone();
                async move {
                    journal.write(line);
                    Ok::<_, TaskError>(())
                }
            },
        )
        .task(
            "broken",
            options(&["text"]),
            async |_: TaskContext, (text,): (String,)| {
                Err::<(), _>(TaskError::Failed(exception("app", "OutOfStock", &text)))
            },
        )
        .task(
            "key_error",
            options(&["key"]),
            async |_: TaskContext, (key,): (String,)| {
                Err::<(), _>(TaskError::Failed(exception("builtins", "KeyError", &key)))
            },
        )
        .task(
            "flaky",
            options(&["succeeds_at"]),
            async |context: TaskContext, (succeeds_at,): (u32,)| {
                if context.retries < succeeds_at {
                    let cause = exception("app", "OutOfStock", "not yet");
                    return Err(TaskError::retry_in(cause, Duration::from_millis(50)));
                }
                Ok(json!(context.retries))
            },
        )
        .task(
            "describe",
            options(&["name", "ratio"]),
            async |_: TaskContext, (_, _): (String, f64)| {
                let cause = exception("app", "OutOfStock", "not here");
                Err::<(), _>(TaskError::retry_in(cause, Duration::from_secs(2)))
            },
        )
        .task(
            "sleeps",
            options(&["seconds"]),
            async |_: TaskContext, (seconds,): (f64,)| {
                // Simulates the work of the task.
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                Ok::<_, TaskError>(())
            },
        )
}
