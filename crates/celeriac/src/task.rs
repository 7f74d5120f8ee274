//! Options of a task, and the outcomes of its attempts. Finding and running tasks is left to the worker.

use std::time::Duration;

use serde_json::Value;

use crate::{exception::Exception, message::TimeLimit, rate_limit::RateLimit, retry::RetryDelay};

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
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) track_started: bool,
    pub(crate) acks_late: bool,
    pub(crate) ignore_result: bool,
    pub(crate) cancel_when_lost: bool,
    pub(crate) parameters: &'static [&'static str],
    pub(crate) extra_kwargs: bool,
    pub(crate) log_arguments: bool,
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
            rate_limit: None,
            track_started: false,
            acks_late: true,
            ignore_result: false,
            cancel_when_lost: true,
            parameters: &[],
            extra_kwargs: false,
            log_arguments: false,
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

    /// Sets the maximum rate at which each worker starts the task; unlimited by default. Remote control can
    /// change it.
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
        self.rate_limit = limit.into();
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

    /// Sets whether the log record of a failure contains the task's arguments, as JSON; off by default. For tasks whose
    /// arguments are not confidential.
    pub fn log_arguments(mut self, log: bool) -> Self {
        self.log_arguments = log;
        self
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
