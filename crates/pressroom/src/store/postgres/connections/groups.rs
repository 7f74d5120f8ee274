//! Groups of concurrent calls that one statement serves, because most of the cost of a small statement does not depend on
//! the number of its rows: messages, the start of its execution, and the commit.
//!
//! Calls that arrive while a group runs form the next one, so a group grows with the load, and a single call waits for no
//! other.

use std::{mem, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use telemetry::{Returned, Statement};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::Primary;
use crate::store::postgres::error::{Result, StatementError};

/// Maximum number of calls in a group.
const MAX_CALLS: usize = 64;

/// Maximum size of the parameters of a group in bytes. Larger calls run by themselves.
const MAX_BYTES: usize = 256 * 1024;

/// Maximum number of calls that wait for their group; further ones fail immediately.
const QUEUE: usize = 1024;

/// Maximum wait for earlier groups.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A call that a statement can serve together with other calls.
#[async_trait]
pub(in crate::store::postgres) trait Call: Clone + Send + Sync + 'static {
    type Answer: Send + 'static;

    /// The statement, for spans. Each call has its own span, which includes the wait for its group.
    const STATEMENT: Statement;

    /// Whether both calls write the same row, which one statement can write only once.
    fn conflicts(&self, _other: &Self) -> bool {
        false
    }

    /// Returns the approximate size of the parameters in bytes, if they may be large.
    fn bytes(&self) -> usize {
        0
    }

    /// Whether the call should run by itself, because it probably has to wait for a lock.
    fn is_blocked(&self, _primary: &Primary) -> bool {
        false
    }

    /// Returns the number of rows in an answer, for spans.
    fn returned_rows(_answer: &Self::Answer) -> Option<i64> {
        None
    }

    /// Runs the statement and returns the answers to `calls`, in the same order. `start` is the time of the oldest call.
    async fn run(primary: &Primary, calls: &[Self], start: Instant) -> Result<Vec<Self::Answer>>;
}

/// Serves calls of one kind in groups.
pub(in crate::store::postgres) struct Groups<C: Call>(mpsc::Sender<Waiting<C>>);

struct Waiting<C: Call> {
    call: C,
    start: Instant,
    answer: oneshot::Sender<Result<C::Answer>>,
}

/// An answer, with its number of rows.
struct Answered<C: Call>(C::Answer);

impl<C: Call> Returned for Answered<C> {
    fn returned_rows(&self) -> Option<i64> {
        C::returned_rows(&self.0)
    }
}

impl<C: Call> Groups<C> {
    /// Starts the task that runs the groups. Must be called within a Tokio runtime.
    pub(in crate::store::postgres) fn new(primary: &Arc<Primary>) -> Self {
        let (calls, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(serve(Arc::clone(primary), waiting));
        Self(calls)
    }

    /// Runs a call. If the caller is dropped, the call may still be run.
    pub(in crate::store::postgres) async fn run(&self, primary: &Primary, call: C) -> Result<C::Answer> {
        let answered = pin!(async {
            let (answer, answered) = oneshot::channel();
            let start = Instant::now();
            self.0
                .try_send(Waiting { call, start, answer })
                .map_err(|_full| {
                    StatementError::unavailable("too many callers are waiting for a connection")
                })?;
            let closed = |_| StatementError::unavailable("the statement ended without a result");
            answered.await.map_err(closed)?.map(Answered::<C>)
        });
        let Answered(answer) = primary.observe(&C::STATEMENT, answered).await?;
        Ok(answer)
    }
}

/// Runs group after group until no caller is left.
async fn serve<C: Call>(primary: Arc<Primary>, mut calls: mpsc::Receiver<Waiting<C>>) {
    let mut waiting: Vec<Waiting<C>> = Vec::new();
    while !waiting.is_empty() || calls.recv_many(&mut waiting, MAX_CALLS).await > 0 {
        let mut group: Vec<Waiting<C>> = Vec::with_capacity(waiting.len());
        let mut bytes = 0;
        for next in mem::take(&mut waiting) {
            if next.answer.is_closed() {
                continue;
            }
            if next.start.elapsed() > MAX_WAIT {
                let late = StatementError::unavailable("no connection became available in time");
                let _departed = next.answer.send(Err(late));
                continue;
            }
            if next.call.is_blocked(&primary) || next.call.bytes() > MAX_BYTES {
                tokio::spawn(run_group(Arc::clone(&primary), vec![next]));
                continue;
            }
            let is_too_large = bytes + next.call.bytes() > MAX_BYTES;
            if is_too_large || group.iter().any(|other| other.call.conflicts(&next.call)) {
                waiting.push(next);
            } else {
                bytes += next.call.bytes();
                group.push(next);
            }
        }
        if !group.is_empty() {
            // In a task, so that a panic fails this group and not all later ones.
            let _panicked = tokio::spawn(run_group(Arc::clone(&primary), group)).await;
        }
    }
}

/// Not an `async fn`, because it spawns itself.
fn run_group<C: Call>(primary: Arc<Primary>, group: Vec<Waiting<C>>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let start = group.iter().map(|waiting| waiting.start).min();
        let start = start.unwrap_or_else(Instant::now);
        let calls: Vec<C> = group.iter().map(|waiting| waiting.call.clone()).collect();
        match C::run(&primary, &calls, start).await {
            Ok(answers) => {
                for (waiting, answer) in group.into_iter().zip(answers) {
                    let _departed = waiting.answer.send(Ok(answer));
                }
            }
            // The server has rejected the whole group, possibly because of a single call, and nothing was committed.
            Err(error) if group.len() > 1 && error.code.is_some() && !error.connection_lost => {
                for waiting in group {
                    // In tasks, because some may have to wait for a lock.
                    tokio::spawn(run_group(Arc::clone(&primary), vec![waiting]));
                }
            }
            Err(error) => {
                for waiting in group {
                    let _departed = waiting.answer.send(Err(error.clone()));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::PostgresConfig;

    /// Doubles a number, and panics on zero.
    #[derive(Clone)]
    struct Double(u8);

    #[async_trait]
    impl Call for Double {
        type Answer = u8;
        const STATEMENT: Statement = Statement::new("SELECT", "numbers", "SELECT numbers", "SELECT 1");

        async fn run(_primary: &Primary, calls: &[Self], _start: Instant) -> Result<Vec<u8>> {
            assert!(calls.iter().all(|call| call.0 > 0), "a defect");
            Ok(calls.iter().map(|call| 2 * call.0).collect())
        }
    }

    /// A call with parameters of this size in bytes, whose answer is the number of calls in its group.
    #[derive(Clone)]
    struct Large(usize);

    #[async_trait]
    impl Call for Large {
        type Answer = usize;
        const STATEMENT: Statement = Double::STATEMENT;

        fn bytes(&self) -> usize {
            self.0
        }

        async fn run(_primary: &Primary, calls: &[Self], _start: Instant) -> Result<Vec<usize>> {
            Ok(vec![calls.len(); calls.len()])
        }
    }

    #[tokio::test]
    async fn the_size_of_a_group_is_limited() {
        let config = PostgresConfig::parse("postgres://127.0.0.1:1/none").unwrap();
        let primary = Arc::new(Primary::open(&config).unwrap());
        let groups = Groups::<Large>::new(&primary);
        for (bytes, expected) in [(MAX_BYTES / 4, 4), (2 * MAX_BYTES, 1)] {
            let calls = (0..8).map(|_| groups.run(&primary, Large(bytes)));
            for calls in futures_util::future::join_all(calls).await {
                assert_eq!(calls.unwrap(), expected);
            }
        }
    }

    #[tokio::test]
    async fn a_panic_fails_one_group_and_later_calls_are_served() {
        let config = PostgresConfig::parse("postgres://127.0.0.1:1/none").unwrap();
        let primary = Arc::new(Primary::open(&config).unwrap());
        let groups = Groups::<Double>::new(&primary);
        assert!(groups.run(&primary, Double(0)).await.is_err());
        assert_eq!(groups.run(&primary, Double(4)).await.unwrap(), 8);
    }
}
