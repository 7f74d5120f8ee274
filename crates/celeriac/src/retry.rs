//! Delay between two attempts at a task, and the decision whether to make another attempt.

use std::time::Duration;

use serde_json::Value;

use crate::system;

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

/// Returns whether a task may be retried after an attempt that was preceded by `retries` others.
///
/// `default` is the task's own maximum, unlimited if `None`. `requested` is the maximum from the message,
/// unlimited if negative, which overrides the default.
pub(crate) fn is_allowed(retries: u32, default: Option<u32>, requested: Option<&Value>) -> bool {
    let maximum = match requested.and_then(Value::as_i64) {
        Some(maximum) => u32::try_from(maximum).ok(),
        None => default,
    };
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
    fn a_message_can_override_the_maximum() {
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
    }
}
