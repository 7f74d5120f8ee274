//! Threads that own a connection each and do the blocking work, so that no other work waits for
//! the disk. The queue in front of them is bounded, and so is the wait.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::store::sqlite::error::StatementError;

/// How long a caller waits, for its turn and for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many callers may wait for their turn.
const QUEUE: usize = 1_024;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Some threads with one queue. They end, and close their connections, when this is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    queue: mpsc::Sender<Job>,
}

impl Threads {
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job>(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for mut connection in connections {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(name.to_owned()).spawn(move || {
                while let Some(job) = next(&jobs) {
                    // Whoever waits learns of a panic through the dropped answer.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                        telemetry::error!("a database job panicked");
                    }
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Does `work` on one of the threads. Work whose caller has gone before its turn is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !answer.is_closed() {
                // Its caller may have gone meanwhile; the work is done all the same.
                let _ = answer.send(work(connection));
            }
        });
        let turn = async {
            self.queue
                .send(job)
                .await
                .map_err(|_closed| StatementError::failed("the database threads have ended"))?;
            answered
                .await
                .map_err(|_dropped| StatementError::failed("a database job panicked"))?
        };
        timeout(ANSWER_TIMEOUT, turn)
            .await
            .unwrap_or_else(|_elapsed| Err(StatementError::unavailable("no answer in time")))
    }
}

fn next(jobs: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .blocking_recv()
}
