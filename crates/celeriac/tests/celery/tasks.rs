//! A Rust worker with the tasks of `python/app.py`, so that either side can run what the other sends.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Exception, TaskContext, TaskError, TaskOptions, Worker, WorkerBuilder};
use serde_json::{Value, json};

use crate::support::Journal;

fn exception(module: &str, type_name: &str, message: &str) -> Exception {
    Exception {
        type_name: type_name.to_owned(),
        module: module.to_owned(),
        message: message.to_owned(),
    }
}

/// `add`, `echo` (its one argument), `note` (writes its argument), `broken` (raises what only `app.py` knows),
/// `key_error` (raises one of Python's own), `describe` (wants to be tried again in two seconds),
/// `flaky` (fails until the attempt given), `sleeps` (seconds).
pub fn worker(broker: Arc<dyn Broker>, journal: &Journal) -> WorkerBuilder {
    let options = |parameters| TaskOptions {
        track_started: true,
        parameters,
        ..TaskOptions::default()
    };
    let journal = journal.clone();
    Worker::builder(broker)
        .hostname("celery@rust")
        .task(
            "add",
            options(&["a", "b"]),
            async |_: TaskContext, (a, b): (i64, i64)| Ok(a + b),
        )
        .task(
            "echo",
            options(&["value"]),
            async |_: TaskContext, (value,): (Value,)| Ok(value),
        )
        .task(
            "note",
            options(&["line"]),
            move |_: TaskContext, (line,): (String,)| {
                let journal = journal.clone();
                async move {
                    journal.write(line);
                    Ok(())
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
                    return Err(TaskError::Retry {
                        cause: exception("app", "OutOfStock", "not yet"),
                        countdown: Some(Duration::from_millis(50)),
                    });
                }
                Ok(json!(context.retries))
            },
        )
        .task(
            "describe",
            options(&["name", "ratio"]),
            async |_: TaskContext, (_, _): (String, f64)| {
                Err::<(), _>(TaskError::Retry {
                    cause: exception("app", "OutOfStock", "not here"),
                    countdown: Some(Duration::from_secs(2)),
                })
            },
        )
        .task(
            "sleeps",
            options(&["seconds"]),
            async |_: TaskContext, (seconds,): (f64,)| {
                // The work that the test asks for.
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                Ok(())
            },
        )
}
