//! Support for the tests of both brokers: tasks, a worker that can be stopped, and waiting for conditions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use celeriac::{
    Broker, Client, Exception, ResultMeta, TaskContext, TaskError, TaskOptions, Worker, WorkerBuilder,
    WorkerError,
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// Time-out for a step, long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` returns a value, and returns it.
pub async fn eventually<T>(description: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out waiting: {description}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for the final result of a task.
pub async fn final_result(client: &Client, id: &str) -> ResultMeta {
    eventually("a final result", async || {
        client
            .result(id)
            .await
            .ok()
            .flatten()
            .filter(|meta| meta.status.is_final())
    })
    .await
}

pub struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    pub fn start(worker: Worker, grace: Duration) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(worker.run(shutdown.clone(), grace));
        Self { shutdown, task }
    }

    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the worker has stopped.
    pub async fn ended(self) -> Result<(), WorkerError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the worker stops")
            .unwrap()
    }

    pub async fn stop(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.ended().await
    }
}

/// Lines written by the tasks of a test, in order.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub async fn until(&self, count: usize) -> Vec<String> {
        eventually("enough lines in the journal", async || {
            Some(self.lines()).filter(|lines| lines.len() >= count)
        })
        .await
    }
}

pub fn down(message: &str) -> Exception {
    Exception::new("OperationalError", message.to_owned()).module("sqlalchemy.exc")
}

/// Builds a worker with the tasks of the tests:
/// - `add` adds two numbers, `total` the numbers of a list.
/// - `pass` returns its argument, `optional` its three arguments, the last two of which may be missing.
/// - `note` writes its argument to the journal.
/// - `flaky` fails until the given attempt, `broken` always fails, `panics` panics, `sleeps` never finishes.
/// - `early` is acknowledged before it starts, writes its argument, waits for the gate, and fails until the
///   given attempt.
/// - `gated` writes its argument and waits for the gate.
pub fn worker(broker: Arc<dyn Broker>, journal: &Journal, gate: &CancellationToken) -> WorkerBuilder {
    let options = || TaskOptions::new().track_started(true);
    let (note, gated, gate) = (journal.clone(), journal.clone(), gate.clone());
    let (early, early_gate) = (journal.clone(), gate.clone());
    Worker::builder(broker)
        .hostname("celery@test")
        .task(
            "add",
            options().parameters(&["a", "b"]),
            async |_: TaskContext, (a, b): (i64, i64)| Ok::<_, TaskError>(a + b),
        )
        .task(
            "pass",
            options(),
            async |_: TaskContext, (value,): (serde_json::Value,)| Ok::<_, TaskError>(value),
        )
        .task(
            "early",
            options().acks_late(false),
            move |context: TaskContext, (line, succeeds_at): (String, u32)| {
                let (early, gate) = (early.clone(), early_gate.clone());
                async move {
                    early.write(&line);
                    gate.cancelled().await;
                    if context.retries < succeeds_at {
                        let cause = down("connection refused");
                        return Err(TaskError::retry_in(cause, Duration::from_millis(20)));
                    }
                    Ok(line)
                }
            },
        )
        .task(
            "optional",
            options().parameters(&["first", "second", "third"]),
            async |_: TaskContext, (first, second, third): (i64, Option<String>, Option<i64>)| {
                Ok::<_, TaskError>((first, second, third))
            },
        )
        .task(
            "total",
            options(),
            async |_: TaskContext, (numbers,): (Vec<i64>,)| {
                Ok::<_, TaskError>(numbers.into_iter().sum::<i64>())
            },
        )
        .task(
            "note",
            options(),
            move |context: TaskContext, (line,): (String,)| {
                let note = note.clone();
                async move {
                    note.write(if context.redelivered {
                        format!("{line} again")
                    } else {
                        line
                    });
                    Ok::<_, TaskError>(())
                }
            },
        )
        .task(
            "flaky",
            options(),
            async |context: TaskContext, (succeeds_at,): (u32,)| {
                if context.retries < succeeds_at {
                    let cause = down("connection refused");
                    return Err(TaskError::retry_in(cause, Duration::from_millis(20)));
                }
                Ok(context.retries)
            },
        )
        .task("broken", options(), async |_: TaskContext, (): ()| {
            Err::<(), _>(TaskError::Failed(down("permanent")))
        })
        .task("panics", options(), async |_: TaskContext, (): ()| {
            if true {
                panic!("out of luck");
            }
            Ok::<_, TaskError>(())
        })
        .task(
            "sleeps",
            options().time_limit(PATIENCE * 10),
            async |_: TaskContext, (): ()| {
                tokio::time::sleep(PATIENCE * 20).await;
                Ok::<_, TaskError>(())
            },
        )
        .task(
            "gated",
            options(),
            move |context: TaskContext, (line,): (String,)| {
                let (gated, gate) = (gated.clone(), gate.clone());
                async move {
                    gated.write(if context.redelivered {
                        format!("{line} again")
                    } else {
                        line
                    });
                    gate.cancelled().await;
                    Ok::<_, TaskError>(())
                }
            },
        )
}
