//! The tasks that clients send and workers run. A task's label determines its kind and its result.

use std::{sync::Arc, time::Duration};

use celeriac::{Exception, Signature, TaskContext, TaskError, TaskOptions, WorkerBuilder};
use tokio::time::sleep;

use crate::{
    history::{Event, History},
    rng::Rng,
};

/// Kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes milliseconds.
    Short,
    /// Takes longer than a lease.
    Long,
    /// Succeeds at the third attempt.
    Retried,
    /// Waits for its time first.
    Later,
    Fails,
}

const KINDS: [Kind; 8] = [
    Kind::Short,
    Kind::Short,
    Kind::Short,
    Kind::Long,
    Kind::Retried,
    Kind::Retried,
    Kind::Later,
    Kind::Fails,
];

impl Kind {
    #[must_use]
    pub fn of(label: u64) -> Self {
        KINDS[(label % KINDS.len() as u64) as usize]
    }

    /// Returns the state in which a task of this kind ends.
    #[must_use]
    pub fn end(self) -> &'static str {
        if self == Self::Fails { "FAILURE" } else { "SUCCESS" }
    }
}

/// Returns a task to send.
pub fn signature(label: u64, rng: &mut Rng) -> Signature {
    let kind = Kind::of(label);
    let milliseconds = match kind {
        Kind::Long => rng.range(7000, 20_000),
        _ => rng.range(0, 400),
    };
    let signature = Signature::new("sim.task").arg(label).arg(milliseconds);
    match kind {
        Kind::Later => signature.countdown(rng.millis(1000, 30_000)),
        _ => signature.priority(rng.pick(&[0, 0, 0, 6])),
    }
}

/// Records the end of a task's code, also if it is dropped.
struct Running {
    history: Arc<History>,
    label: u64,
    life: String,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self { label, ended, .. } = *self;
        let life = self.life.clone();
        self.history.add(Event::End {
            label,
            life,
            dropped: !ended,
        });
    }
}

/// Registers the tasks with the worker of a life.
pub fn register(worker: WorkerBuilder, life: &str, history: &Arc<History>) -> WorkerBuilder {
    let (life, history) = (life.to_owned(), Arc::clone(history));
    worker.task(
        "sim.task",
        TaskOptions::new().max_retries(50),
        move |context: TaskContext, (label, milliseconds): (u64, u64)| {
            let (life, history) = (life.clone(), Arc::clone(&history));
            async move {
                history.add(Event::Begin {
                    label,
                    life: life.clone(),
                });
                let mut running = Running {
                    history,
                    label,
                    life,
                    ended: false,
                };
                sleep(Duration::from_millis(milliseconds)).await;
                running.ended = true;
                match Kind::of(label) {
                    Kind::Fails => Err(TaskError::from(Exception::new("ValueError", "as planned"))),
                    Kind::Retried if context.retries < 2 => {
                        Err(TaskError::retry_in("as planned", Duration::from_secs(2)))
                    }
                    _ => Ok(label),
                }
            }
        },
    )
}
