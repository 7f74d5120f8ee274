//! What the tests of both brokers share: a worker that can be stopped, and waiting for conditions.

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

/// Longer than anything takes on a loaded machine: reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a task's final result.
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

    /// Waits until it has ended by itself.
    pub async fn ended(self) -> Result<(), WorkerError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the worker ends")
            .unwrap()
    }

    pub async fn stop(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.ended().await
    }
}

/// What the tasks of a test have done, in order.
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
    Exception {
        type_name: "OperationalError".to_owned(),
        module: "sqlalchemy.exc".to_owned(),
        message: message.to_owned(),
    }
}

/// A worker with the tasks of the tests:
/// `add`; `pass` (gives back its argument); `total` (of a list); `optional` (gives back three arguments, two of which may be missing); `note` (writes its argument); `flaky` (fails until the attempt given); `broken`; `panics`; `sleeps`;
/// `early` (acknowledged before it begins; writes its argument, waits for the gate and fails until the attempt given);
/// `gated` (writes its argument and waits for the gate).
pub fn worker(broker: Arc<dyn Broker>, journal: &Journal, gate: &CancellationToken) -> WorkerBuilder {
    let options = || TaskOptions {
        track_started: true,
        ..TaskOptions::default()
    };
    let (note, gated, gate) = (journal.clone(), journal.clone(), gate.clone());
    let (early, early_gate) = (journal.clone(), gate.clone());
    Worker::builder(broker)
        .hostname("celery@test")
        .task(
            "add",
            TaskOptions {
                parameters: &["a", "b"],
                ..options()
            },
            async |_: TaskContext, (a, b): (i64, i64)| Ok(a + b),
        )
        .task(
            "pass",
            options(),
            async |_: TaskContext, (value,): (serde_json::Value,)| Ok(value),
        )
        .task(
            "early",
            TaskOptions {
                acks_late: false,
                ..options()
            },
            move |context: TaskContext, (line, succeeds_at): (String, u32)| {
                let (early, gate) = (early.clone(), early_gate.clone());
                async move {
                    early.write(&line);
                    gate.cancelled().await;
                    if context.retries < succeeds_at {
                        let countdown = Some(Duration::from_millis(20));
                        let cause = down("connection refused");
                        return Err(TaskError::Retry { cause, countdown });
                    }
                    Ok(line)
                }
            },
        )
        .task(
            "optional",
            TaskOptions {
                parameters: &["first", "second", "third"],
                ..options()
            },
            async |_: TaskContext, (first, second, third): (i64, Option<String>, Option<i64>)| {
                Ok((first, second, third))
            },
        )
        .task(
            "total",
            options(),
            async |_: TaskContext, (numbers,): (Vec<i64>,)| Ok(numbers.into_iter().sum::<i64>()),
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
                    Ok(())
                }
            },
        )
        .task(
            "flaky",
            options(),
            async |context: TaskContext, (succeeds_at,): (u32,)| {
                if context.retries < succeeds_at {
                    let countdown = Some(Duration::from_millis(20));
                    return Err(TaskError::Retry {
                        cause: down("connection refused"),
                        countdown,
                    });
                }
                Ok(context.retries)
            },
        )
        .task("broken", options(), async |_: TaskContext, (): ()| {
            Err::<(), _>(TaskError::Failed(down("for good")))
        })
        .task("panics", options(), async |_: TaskContext, (): ()| {
            if true {
                panic!("out of luck");
            }
            Ok(())
        })
        .task(
            "sleeps",
            TaskOptions {
                time_limit: Some(PATIENCE * 10),
                ..options()
            },
            async |_: TaskContext, (): ()| {
                tokio::time::sleep(PATIENCE * 20).await;
                Ok(())
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
                    Ok(())
                }
            },
        )
}
