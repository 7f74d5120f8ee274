//! Types for the code of a task: its options, its context, and its errors. Finding and running tasks is left
//! to the worker.

use std::{
    fmt, future,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    exception::{BoxError, Exception},
    message::TimeLimit,
    retry::RetryDelay,
    task_id::TaskId,
};

/// Options of a task. A message can override some of them.
///
/// ```
/// use std::time::Duration;
/// use celeriac::{RetryDelay, TaskOptions};
///
/// let options = TaskOptions::new()
///     .max_retries(5)
///     .retry_delay(RetryDelay::BACKOFF)
///     .time_limit(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct TaskOptions {
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_delay: RetryDelay,
    pub(crate) time_limit: TimeLimit,
    pub(crate) track_started: bool,
    pub(crate) acks_late: bool,
    pub(crate) ignore_result: bool,
    pub(crate) cancel_when_lost: bool,
    pub(crate) parameters: &'static [&'static str],
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self {
            max_retries: Some(3),
            retry_delay: RetryDelay::default(),
            time_limit: TimeLimit::default(),
            track_started: false,
            acks_late: true,
            ignore_result: false,
            cancel_when_lost: true,
            parameters: &[],
        }
    }

    /// Sets the maximum number of retries, unlimited with `None`; 3 by default, as in Celery.
    /// [`Signature::max_retries`](crate::Signature::max_retries) overrides it.
    pub fn max_retries(mut self, retries: impl Into<Option<u32>>) -> Self {
        self.max_retries = retries.into();
        self
    }

    /// Sets the delay before a retry if its error does not set one; 1, 2, 4 and so on seconds by default.
    pub fn retry_delay(mut self, delay: RetryDelay) -> Self {
        self.retry_delay = delay;
        self
    }

    /// Sets the time after which the task is asked to end; see [`TaskContext::soft_time_limit`]. Unlimited by
    /// default.
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit.soft = Some(limit);
        self
    }

    /// Sets the time after which the task is stopped. Unlimited by default.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit.hard = Some(limit);
        self
    }

    /// Sets whether the state `STARTED` is stored when the task starts; off by default.
    pub fn track_started(mut self, track: bool) -> Self {
        self.track_started = track;
        self
    }

    /// Sets whether the message is acknowledged when the task has ended; on by default, unlike Celery's
    /// `acks_late`.
    ///
    /// A task that is acknowledged late runs again if its worker dies. A task that is acknowledged early,
    /// before it starts, never runs twice, but is lost if its worker dies.
    pub fn acks_late(mut self, late: bool) -> Self {
        self.acks_late = late;
        self
    }

    /// Sets whether results are discarded even if the message asks for them; off by default.
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.ignore_result = ignore;
        self
    }

    /// Sets whether a running task is cancelled, at its next await, when another worker has taken over its
    /// message; on by default.
    ///
    /// This happens if the worker was paused or cut off from the broker for longer than its lease. The other
    /// worker runs the task again. With `false`, the task continues to its end; in either case its outcome is
    /// discarded: no result is stored, and no retry or follow-up task is sent.
    pub fn cancel_when_lost(mut self, cancel: bool) -> Self {
        self.cancel_when_lost = cancel;
        self
    }

    /// Sets the names of the positional arguments, which lets callers pass them by keyword.
    ///
    /// Arguments that a caller omits are null, which an `Option` accepts. Keyword arguments with other names
    /// are ignored.
    pub fn parameters(mut self, names: &'static [&'static str]) -> Self {
        self.parameters = names;
        self
    }
}

/// Context of one attempt at a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskContext {
    /// Task id.
    pub id: TaskId,
    /// Registered name.
    pub task: String,
    /// Number of earlier attempts.
    pub retries: u32,
    /// Name of the worker.
    pub hostname: String,
    /// Queue that the message was received from.
    pub queue: String,
    /// Task that sent this one; the task itself from its second attempt on.
    pub parent_id: Option<TaskId>,
    /// First task of the tree that this task belongs to.
    pub root_id: Option<TaskId>,
    /// Whether the message was delivered before to a worker that did not finish the task.
    pub redelivered: bool,
    pub(crate) soft: SoftLimit,
    /// Cancelled when the worker no longer waits for this attempt.
    pub(crate) stopped: CancellationToken,
}

impl TaskContext {
    /// Creates the context of a first attempt, for unit tests of a task. The fields can be changed.
    ///
    /// ```
    /// use celeriac::{TaskContext, TaskError};
    ///
    /// async fn add(_: TaskContext, (a, b): (i64, i64)) -> Result<i64, TaskError> {
    ///     Ok(a + b)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let sum = add(TaskContext::for_test("math.add"), (2, 3)).await;
    /// assert_eq!(sum, Ok(5));
    /// # }
    /// ```
    pub fn for_test(task: impl Into<String>) -> Self {
        Self {
            id: Uuid::nil().into(),
            task: task.into(),
            retries: 0,
            hostname: "celery@test".to_owned(),
            queue: "celery".to_owned(),
            parent_id: None,
            root_id: None,
            redelivered: false,
            soft: SoftLimit::default(),
            stopped: CancellationToken::new(),
        }
    }

    /// Runs blocking code on a thread where it delays no other task.
    ///
    /// Blocking code in the task itself, such as a long computation or a synchronous client, occupies a
    /// thread of the runtime: other tasks wait, and time limits and termination take effect only when the
    /// code returns.
    ///
    /// If the task is stopped, the code still runs to its end and its value is discarded. Code that takes
    /// long can check [`is_stopped`](Self::is_stopped).
    ///
    /// # Panics
    /// Panics if the code panics, which fails the task.
    ///
    /// ```
    /// use celeriac::{TaskContext, TaskError};
    ///
    /// async fn count_primes(context: TaskContext, (limit,): (u64,)) -> Result<usize, TaskError> {
    ///     let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| n % d != 0);
    ///     let count = context.run_blocking(move |context| {
    ///         (2..limit).take_while(|_| !context.is_stopped()).filter(|n| is_prime(*n)).count()
    ///     });
    ///     Ok(count.await)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let count = count_primes(TaskContext::for_test("math.count_primes"), (20,)).await;
    /// assert_eq!(count, Ok(8));
    /// # }
    /// ```
    pub async fn run_blocking<R: Send + 'static>(self, code: impl FnOnce(Self) -> R + Send + 'static) -> R {
        #[cfg(feature = "telemetry")]
        let trace = telemetry::Context::current();
        let blocking = tokio::task::spawn_blocking(move || {
            #[cfg(feature = "telemetry")]
            let _attached = trace.attach();
            code(self)
        });
        match blocking.await.map_err(JoinError::try_into_panic) {
            Ok(value) => value,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime is shutting down, and drops this future too.
            Err(Err(_)) => future::pending().await,
        }
    }

    /// Returns whether the worker no longer waits for this attempt: the task has returned, was stopped by a
    /// time limit or termination, or another worker has taken over its message.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    /// Resolves when the soft time limit has passed. The task can then clean up before the hard limit.
    ///
    /// A task that never calls this method is stopped at the soft limit with `SoftTimeLimitExceeded`. A task
    /// that has called this method continues until it returns or the hard limit stops it.
    pub fn soft_time_limit(&self) -> impl Future<Output = ()> + Send + 'static {
        self.soft.watched.store(true, Ordering::Release);
        self.soft.passed.clone().cancelled_owned()
    }

    /// Makes the soft time limit pass now, for unit tests of a task.
    pub fn pass_soft_time_limit(&self) {
        self.soft.pass();
    }
}

/// Soft time limit of one attempt, which the task watches and the worker signals.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoftLimit {
    watched: Arc<AtomicBool>,
    passed: CancellationToken,
}

impl SoftLimit {
    /// Notifies the task that the limit has passed. Returns whether the task watches the limit.
    pub(crate) fn pass(&self) -> bool {
        self.passed.cancel();
        self.watched.load(Ordering::Acquire)
    }
}

/// Error that ends one attempt at a task.
///
/// With `?`, any error becomes a [`Failed`](Self::Failed): types that implement [`std::error::Error`],
/// strings, and wrappers such as `anyhow::Error`. The exception is named after the error's Rust type, see
/// [`Exception::from_error`]. [`TaskError::retry`] turns a transient error into a retry:
///
/// ```
/// use celeriac::{TaskContext, TaskError};
///
/// async fn count_words(_: TaskContext, (path,): (String,)) -> Result<usize, TaskError> {
///     let text = std::fs::read(path).map_err(TaskError::retry)?;
///     Ok(String::from_utf8(text)?.split_whitespace().count())
/// }
/// ```
///
/// For this conversion to be possible, `TaskError` does not implement [`std::error::Error`] itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// Transient failure. The task is retried until `max_retries` is reached, and then fails with `cause`.
    Retry {
        /// Error of this attempt.
        cause: Exception,
        /// Delay before the next attempt; [`TaskOptions::retry_delay`] if `None`.
        countdown: Option<Duration>,
    },
    /// Permanent failure.
    Failed(Exception),
}

impl TaskError {
    /// Creates a retry after the task's usual delay.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self::Retry {
            cause: Exception::from_error(cause),
            countdown: None,
        }
    }

    /// Creates a retry after `countdown`.
    pub fn retry_in(cause: impl Into<BoxError>, countdown: Duration) -> Self {
        Self::Retry {
            cause: Exception::from_error(cause),
            countdown: Some(countdown),
        }
    }
}

impl<E: Into<BoxError>> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::Failed(Exception::from_error(error))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { cause, .. } => write!(f, "to be retried: {cause}"),
            Self::Failed(exception) => exception.fmt(f),
        }
    }
}

/// Outcome of one attempt at a task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// The task returned a value.
    Success(Value),
    /// The task is retried after `countdown`.
    Retry {
        /// Error of this attempt.
        cause: Exception,
        /// Delay before the next attempt.
        countdown: Duration,
    },
    /// The task failed permanently.
    Failure(Exception),
    /// The worker stopped or rejected the task. Contains the exception, and its arguments as results store
    /// them.
    Rejected(Exception, Vec<Value>),
    /// The task must not run: `expired`, `revoked`, or `terminated` while it ran.
    Revoked(&'static str),
}

impl TaskOutcome {
    /// Returns Celery's name for the state of the task.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Success(_) => "SUCCESS",
            Self::Retry { .. } => "RETRY",
            Self::Failure(_) | Self::Rejected(..) => "FAILURE",
            Self::Revoked(_) => "REVOKED",
        }
    }

    /// Returns the error, if there was one.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Retry { cause, .. } => Some(cause),
            Self::Failure(exception) | Self::Rejected(exception, _) => Some(exception),
            Self::Success(_) | Self::Revoked(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(returned: Result<(), TaskError>) -> Exception {
        match returned {
            Err(TaskError::Failed(exception)) => exception,
            other => panic!("not failed: {other:?}"),
        }
    }

    #[test]
    fn any_error_fails_a_task_that_uses_the_question_mark() {
        let exception = failed((|| {
            Err(io::Error::other("disk full"))?;
            Ok(())
        })());
        assert_eq!(
            exception,
            Exception::new("Error", "disk full").module("std.io.error")
        );
        let exception = failed((|| {
            serde_json::from_str::<u8>("one")?;
            Ok(())
        })());
        assert_eq!(exception.module, "serde_json.error");
        let exception = failed((|| {
            Err(anyhow::anyhow!("no answer").context("cannot send"))?;
            Ok(())
        })());
        assert_eq!(
            exception,
            Exception::new("Error", "cannot send: no answer").module("anyhow")
        );
        let known = Exception::new("OperationalError", "down").module("sqlalchemy.exc");
        let exception = failed((|| {
            Err(known.clone())?;
            Ok(())
        })());
        assert_eq!(exception, known);
    }
}
