//! Threads that each own a connection and do the blocking work, so that no async task waits for the disk. The
//! queue of jobs and the wait for their results are bounded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::store::sqlite::error::StatementError;

/// Maximum wait for a thread and the result of its work.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of jobs that wait for a thread.
const MAX_WAITING: usize = 1_024;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads with one queue. They end, and close their connections, when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Threads {
    queue: mpsc::Sender<Job>,
    /// Permits for jobs whose callers have not received the result. The threads are faster than the callers, so without
    /// a limit, many results, of megabytes each, would wait in memory.
    results: Arc<Semaphore>,
}

impl Threads {
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> Result<Self, StatementError> {
        let results = Arc::new(Semaphore::new(2 * connections.len()));
        let (queue, jobs) = mpsc::channel::<Job>(MAX_WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        for mut connection in connections {
            let jobs = Arc::clone(&jobs);
            let work = move || {
                while let Some(job) = next(&jobs) {
                    // The panic drops the sender of the result, so the caller receives an error.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                        telemetry::error!("a database job panicked");
                    }
                }
            };
            let thread = thread::Builder::new().name(name.to_owned());
            thread
                .spawn(work)
                .map_err(|error| StatementError::unavailable(error.to_string()))?;
        }
        Ok(Self { queue, results })
    }

    /// Runs `work` on one of the threads, or skips it if the caller is dropped before `work` starts.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let (sender, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !sender.is_closed() {
                // Fails if the caller was dropped during the work.
                let _ = sender.send(work(connection));
            }
        });
        let done = async {
            let _permit = self.results.acquire().await;
            self.queue
                .send(job)
                .await
                .map_err(|_closed| StatementError::failed("the database threads have ended"))?;
            result
                .await
                .map_err(|_dropped| StatementError::failed("a database job panicked"))?
        };
        timeout(RESPONSE_TIMEOUT, done)
            .await
            .unwrap_or_else(|_elapsed| Err(StatementError::unavailable("no response in time")))
    }
}

fn next(jobs: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .blocking_recv()
}
