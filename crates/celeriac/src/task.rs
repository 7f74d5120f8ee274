//! Types for the code of a task: its options, its errors, and the outcomes of its attempts. Finding and
//! running tasks is left to the worker.

use std::{fmt, time::Duration};

use serde_json::Value;

use crate::{
    canvas::Canvas,
    exception::{BoxError, Exception},
    message::TimeLimit,
    retry::{Retry, RetryDelay},
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
    pub(crate) parameters: &'static [&'static str],
    pub(crate) extra_kwargs: bool,
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
            parameters: &[],
            extra_kwargs: false,
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

    /// Sets the time after which the task is asked to end; see
    /// [`TaskContext::soft_time_limit`](crate::TaskContext::soft_time_limit). Unlimited by default.
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

    /// Sets the names of the positional arguments, which lets callers pass them by keyword.
    ///
    /// Arguments that a caller omits are null, which an `Option` accepts. A keyword argument with another name
    /// is a `TypeError`, unless [`extra_kwargs`](Self::extra_kwargs) allows it.
    pub fn parameters(mut self, names: &'static [&'static str]) -> Self {
        self.parameters = names;
        self
    }

    /// Sets whether the task accepts keyword arguments that are not among its parameters, like Python's
    /// `**kwargs`; off by default. The task finds them in
    /// [`TaskContext::message`](crate::TaskContext::message).
    pub fn extra_kwargs(mut self, accept: bool) -> Self {
        self.extra_kwargs = accept;
        self
    }
}

/// Error that ends one attempt at a task.
///
/// With `?`, any error becomes a [`Failed`](Self::Failed): types that implement [`std::error::Error`], strings,
/// and wrappers such as `anyhow::Error`. The exception is named after the error's Rust type, see
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
    /// Transient failure. The task is retried until `max_retries` is reached, and then fails with the cause.
    Retry(Box<Retry>),
    /// Permanent failure.
    Failed(Exception),
    /// Ends the task without a result, callbacks or errbacks, like Celery's `Ignore`.
    Ignore,
    /// Rejects the message, like Celery's `Reject`. No result is stored.
    ///
    /// A task that was acknowledged early is only ended.
    Reject {
        /// Whether the message returns to the head of its queue. Otherwise it is moved to the dead-letter
        /// list.
        requeue: bool,
        /// Reason that the dead letter and the log show.
        reason: String,
    },
    /// Replaces the task with other tasks, like Celery's `self.replace`; see [`TaskError::replace`].
    Replace(Box<Canvas>),
}

impl TaskError {
    /// Creates a retry after the task's usual delay.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Retry::new(cause).into()
    }

    /// Creates a retry after `countdown`.
    pub fn retry_in(cause: impl Into<BoxError>, countdown: Duration) -> Self {
        Retry::new(cause).countdown(countdown).into()
    }

    /// Replaces the task with other tasks, which inherit its id, its callbacks and its place in chains and
    /// chords. A group is replaced by the list of its return values.
    ///
    /// ```
    /// use celeriac::{Signature, TaskContext, TaskError, group};
    ///
    /// async fn sum_of_squares(_: TaskContext, (numbers,): (Vec<i64>,)) -> Result<(), TaskError> {
    ///     let squares = group(numbers.into_iter().map(|number| Signature::new("square").arg(number)));
    ///     Err(TaskError::replace(squares.then(Signature::new("sum"))))
    /// }
    /// ```
    pub fn replace(with: impl Into<Canvas>) -> Self {
        Self::Replace(Box::new(with.into()))
    }
}

impl From<Retry> for TaskError {
    fn from(retry: Retry) -> Self {
        Self::Retry(Box::new(retry))
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
            Self::Retry(retry) => write!(f, "to be retried: {}", retry.cause),
            Self::Failed(exception) => exception.fmt(f),
            Self::Ignore => f.write_str("ignored"),
            Self::Reject { reason, .. } => write!(f, "rejected: {reason}"),
            Self::Replace(_) => f.write_str("replaced by other tasks"),
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
    /// The worker stopped the task, or does not know it.
    Aborted(Exception),
    /// The task ended without a result, or was replaced by other tasks.
    Ignored,
    /// The task rejected its message.
    Rejected {
        /// Whether the message returns to its queue.
        requeue: bool,
    },
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
            Self::Failure(_) | Self::Aborted(_) => "FAILURE",
            Self::Ignored => "IGNORED",
            Self::Rejected { .. } => "REJECTED",
            Self::Revoked(_) => "REVOKED",
        }
    }

    /// Returns the error, if there was one.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Retry { cause, .. } => Some(cause),
            Self::Failure(exception) | Self::Aborted(exception) => Some(exception),
            Self::Success(_) | Self::Revoked(_) | Self::Ignored | Self::Rejected { .. } => None,
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
