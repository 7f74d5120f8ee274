//! The ways in which the code of a task ends an attempt without a return value.

use std::{fmt, time::Duration};

use crate::{
    canvas::Canvas,
    exception::{BoxError, Exception},
    retry::Retry,
};

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
