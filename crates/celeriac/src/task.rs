//! What a task's code sees: its context on the way in, and on the way out a value or one of the two kinds of
//! error. How tasks are found and run is the worker's business.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::retry::RetryDelay;

/// How a task is run, unless its message says otherwise.
#[derive(Debug, Clone)]
pub struct TaskOptions {
    /// How often it is tried again; 3 by default, as in Celery, and for ever with `None`. A signature may say otherwise.
    pub max_retries: Option<u32>,
    /// How long until it is tried again, unless it says so itself; 1, 2, 4 and so on seconds by default.
    pub retry_delay: RetryDelay,
    /// It is told to end after this long; see [`TaskContext::soft_time_limit`].
    pub soft_time_limit: Option<Duration>,
    /// It is ended after this long.
    pub time_limit: Option<Duration>,
    /// Whether `STARTED` is stored when it begins.
    pub track_started: bool,
    /// Whether its message is acknowledged when it has ended, so that it runs again if its worker dies; the default.
    /// Otherwise it is acknowledged before it begins and never runs twice, but is lost with its worker. Celery's
    /// `acks_late`, whose default is the other way round.
    pub acks_late: bool,
    /// Whether its results are thrown away, in addition to what messages ask for.
    pub ignore_result: bool,
    /// The names of its positional arguments, so that callers may pass them by keyword. What they leave out is null,
    /// which an `Option` takes; keywords that are not among the names are ignored.
    pub parameters: &'static [&'static str],
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            max_retries: Some(3),
            retry_delay: RetryDelay::default(),
            soft_time_limit: None,
            time_limit: None,
            track_started: false,
            acks_late: true,
            ignore_result: false,
            parameters: &[],
        }
    }
}

/// What a task knows about its own run.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// The task's id.
    pub id: String,
    /// Its registered name.
    pub task: String,
    /// How often it was tried before.
    pub retries: u32,
    /// The worker that runs it.
    pub hostname: String,
    /// The queue it came from.
    pub queue: String,
    /// The task that sent it, itself from the second attempt on.
    pub parent_id: Option<String>,
    /// The first task of its tree.
    pub root_id: Option<String>,
    /// Whether another worker had it before and did not finish.
    pub redelivered: bool,
    pub(crate) soft: SoftLimit,
}

impl TaskContext {
    /// Resolves when the soft time limit has passed, so that the task can clean up and end by itself before the hard
    /// one. A task that never asks is ended at the soft limit with `SoftTimeLimitExceeded`; one that has asked
    /// goes on until it returns or the hard limit ends it.
    pub fn soft_time_limit(&self) -> impl Future<Output = ()> + Send + 'static {
        self.soft.watched.store(true, Ordering::Release);
        self.soft.passed.clone().cancelled_owned()
    }
}

/// The two sides of the soft limit: the task may watch it, the worker pulls it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoftLimit {
    watched: Arc<AtomicBool>,
    passed: CancellationToken,
}

impl SoftLimit {
    /// The limit has passed. Returns whether the task handles that itself.
    pub(crate) fn pass(&self) -> bool {
        self.passed.cancel();
        self.watched.load(Ordering::Acquire)
    }
}

/// Why a task did not return a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskError {
    /// It may work later. Tried again until `max_retries` is reached, then it failed with `cause`.
    Retry {
        /// What went wrong.
        cause: Exception,
        /// How long to wait; as [`TaskOptions::retry_delay`] says when `None`.
        countdown: Option<Duration>,
    },
    /// It will never work.
    Failed(Exception),
}

/// An error in the words of Celery's results, readable by Python clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The class name, such as `OperationalError`.
    pub type_name: String,
    /// The module it is from, such as `sqlalchemy.exc`.
    pub module: String,
    /// What it says.
    pub message: String,
}

impl Exception {
    /// An exception of Python's `builtins`.
    pub(crate) fn builtin(type_name: &str, message: impl Into<String>) -> Self {
        Self {
            type_name: type_name.to_owned(),
            module: "builtins".to_owned(),
            message: message.into(),
        }
    }

    /// The text where Python would have its traceback. Rust errors carry no frames.
    pub(crate) fn traceback(&self) -> String {
        let Self {
            type_name,
            module,
            message,
        } = self;
        match module.as_str() {
            "" | "builtins" => format!("Traceback (most recent call last):\n{type_name}: {message}\n"),
            _ => format!("Traceback (most recent call last):\n{module}.{type_name}: {message}\n"),
        }
    }
}

/// How one attempt at a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskOutcome {
    /// It returned a value.
    Success(Value),
    /// It is tried again after `countdown`.
    Retry {
        /// What went wrong this time.
        cause: Exception,
        /// How long until the next attempt.
        countdown: Duration,
    },
    /// It failed for good.
    Failure(Exception),
    /// It was ended from outside its code: the exception, and its arguments as results show them.
    Rejected(Exception, Vec<Value>),
    /// It was not to be run: `expired`, `revoked`, or `terminated` while it ran.
    Revoked(&'static str),
}

impl TaskOutcome {
    /// Celery's name for the state the task is in now.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Success(_) => "SUCCESS",
            Self::Retry { .. } => "RETRY",
            Self::Failure(_) | Self::Rejected(..) => "FAILURE",
            Self::Revoked(_) => "REVOKED",
        }
    }

    /// What went wrong, if something did.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Retry { cause, .. } => Some(cause),
            Self::Failure(exception) | Self::Rejected(exception, _) => Some(exception),
            Self::Success(_) | Self::Revoked(_) => None,
        }
    }
}
