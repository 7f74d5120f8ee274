//! Retries of a task: the delay between two attempts, the options of the next attempt, and the decision
//! whether to make it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    exception::{BoxError, Exception},
    system,
};

/// Delay before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDelay {
    /// Constant delay. Celery's `default_retry_delay`.
    Fixed(Duration),
    /// Delay that doubles with every attempt. Celery's `retry_backoff`.
    Exponential {
        /// Delay before the first retry.
        first: Duration,
        /// Maximum delay. Celery's `retry_backoff_max`.
        longest: Duration,
        /// Whether the delay is a random part of the computed delay, which spreads the retries of tasks that
        /// failed together. Celery's `retry_jitter`.
        jitter: bool,
    },
}

impl RetryDelay {
    /// Delays of Celery's `retry_backoff=True`: 1, 2, 4 and so on up to 600 seconds, with jitter.
    pub const BACKOFF: Self = Self::Exponential {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(600),
        jitter: true,
    };

    /// Returns the delay after an attempt that was preceded by `retries` others.
    #[must_use]
    pub fn after(&self, retries: u32) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Exponential {
                first,
                longest,
                jitter,
            } => {
                let factor = 1_u32.checked_shl(retries).unwrap_or(u32::MAX);
                let delay = first.saturating_mul(factor).min(longest);
                if jitter {
                    delay.mul_f64(system::random_fraction())
                } else {
                    delay
                }
            }
        }
    }
}

impl Default for RetryDelay {
    /// Returns delays of 1, 2, 4 and so on up to 600 seconds, without jitter.
    fn default() -> Self {
        Self::Exponential {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
            jitter: false,
        }
    }
}

/// Request for another attempt at a task, with options for that attempt.
///
/// ```
/// use std::time::Duration;
/// use celeriac::{Exception, Retry, TaskContext, TaskError};
///
/// async fn upload(_: TaskContext, (path,): (String,)) -> Result<(), TaskError> {
///     let busy = Exception::new("Busy", format!("{path} is locked"));
///     Err(Retry::new(busy).countdown(Duration::from_secs(30)).max_retries(10))?
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    pub(crate) cause: Exception,
    pub(crate) countdown: Option<Duration>,
    pub(crate) eta: Option<Timestamp>,
    pub(crate) max_retries: Option<Option<u32>>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) priority: Option<u8>,
    pub(crate) queue: Option<String>,
    pub(crate) args: Option<Vec<Value>>,
    pub(crate) kwargs: Option<Map<String, Value>>,
}

impl Retry {
    /// Creates a retry after the task's usual delay.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self {
            cause: Exception::from_error(cause),
            countdown: None,
            eta: None,
            max_retries: None,
            expires: None,
            priority: None,
            queue: None,
            args: None,
            kwargs: None,
        }
    }

    /// Sets the delay before the next attempt; [`TaskOptions::retry_delay`](crate::TaskOptions::retry_delay)
    /// by default.
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.countdown = Some(countdown);
        self
    }

    /// Sets the earliest time of the next attempt, which overrides the delay.
    pub fn eta(mut self, eta: Timestamp) -> Self {
        self.eta = Some(eta);
        self
    }

    /// Sets the maximum number of retries (`None` for no limit) that this failure is compared with. Later
    /// attempts are not affected.
    pub fn max_retries(mut self, retries: impl Into<Option<u32>>) -> Self {
        self.max_retries = Some(retries.into());
        self
    }

    /// Sets the expiry time of the next attempt.
    pub fn expires(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Sets the priority of the next attempt, from 0 (first) to 9 (last); larger numbers count as 9.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority.min(9));
        self
    }

    /// Sets the queue of the next attempt.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Sets the positional arguments of the next attempt.
    pub fn args(mut self, args: Vec<Value>) -> Self {
        self.args = Some(args);
        self
    }

    /// Sets the keyword arguments of the next attempt.
    pub fn kwargs(mut self, kwargs: Map<String, Value>) -> Self {
        self.kwargs = Some(kwargs);
        self
    }

    /// Returns the error of this attempt.
    pub fn cause(&self) -> &Exception {
        &self.cause
    }
}

/// Returns whether a task may be retried after an attempt that was preceded by `retries` others.
///
/// `default` is the task's own maximum, unlimited if `None`. `requested` is the maximum from the message,
/// unlimited if negative, which overrides the default. `own` is the maximum of this retry, which overrides
/// both.
pub(crate) fn is_allowed(
    retries: u32,
    default: Option<u32>,
    requested: Option<&Value>,
    own: Option<Option<u32>>,
) -> bool {
    let maximum = own.unwrap_or_else(|| match requested.and_then(Value::as_i64) {
        Some(maximum) => u32::try_from(maximum).ok(),
        None => default,
    });
    maximum.is_none_or(|maximum| retries < maximum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let seconds = |delay: RetryDelay, retries| delay.after(retries).as_secs();
        let delays: Vec<_> = (0..4)
            .map(|retries| seconds(RetryDelay::default(), retries))
            .collect();
        assert_eq!(delays, [1, 2, 4, 8]);
        for retries in [10, 31, 32, u32::MAX] {
            assert_eq!(seconds(RetryDelay::default(), retries), 600, "{retries}");
        }
        assert_eq!(seconds(RetryDelay::Fixed(Duration::from_secs(180)), 7), 180);
    }

    #[test]
    fn jitter_shortens_the_delay_at_random() {
        let delays: Vec<_> = (0..200).map(|_| RetryDelay::BACKOFF.after(3)).collect();
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(8)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_secs(4)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_secs(4)));
    }

    #[test]
    fn a_message_and_a_retry_can_override_the_maximum() {
        fn is_allowed(retries: u32, default: Option<u32>, requested: Option<&Value>) -> bool {
            super::is_allowed(retries, default, requested, None)
        }
        assert!(is_allowed(2, Some(3), None));
        assert!(!is_allowed(3, Some(3), None));
        assert!(is_allowed(1_000_000, None, None), "unlimited");
        assert!(is_allowed(3, Some(3), Some(&json!(4))));
        assert!(!is_allowed(0, Some(3), Some(&json!(0))));
        assert!(is_allowed(1_000_000, Some(3), Some(&json!(-1))), "unlimited");
        assert!(
            !is_allowed(3, Some(3), Some(&json!(null))),
            "null means no request"
        );
        assert!(!is_allowed(3, Some(3), Some(&json!("many"))));
        assert!(super::is_allowed(3, Some(3), None, Some(Some(4))));
        assert!(super::is_allowed(1_000_000, Some(3), Some(&json!(1)), Some(None)));
        assert!(!super::is_allowed(1, Some(3), Some(&json!(-1)), Some(Some(1))));
    }
}
