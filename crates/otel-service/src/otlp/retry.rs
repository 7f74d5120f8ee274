//! When a request is sent again: exponential back-off with jitter, or as long as the collector asks for, and never
//! beyond the deadline.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Accepted, SendError};
use crate::config::Signal;
use crate::export::TARGET;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// No collector keeps us away longer, whatever it says.
const LONGEST_WISH: Duration = Duration::from_secs(3_600);

/// The `error.type` of an attempt that the deadline ended.
pub(super) const TIMEOUT: &str = "timeout";

/// An attempt that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    pub(super) error_type: &'static str,
    pub(super) message: String,
    pub(super) again: Again,
}

/// Whether another attempt may do better.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Again {
    Never,
    AfterPause,
    /// Not sooner than the collector said.
    After(Duration),
}

impl Failure {
    /// The connection could not be made, or broke before the answer.
    pub(super) fn connection(message: impl Into<String>) -> Self {
        Self {
            error_type: "connection_error",
            message: message.into(),
            again: Again::AfterPause,
        }
    }

    fn timeout() -> Self {
        Self {
            error_type: TIMEOUT,
            message: "the collector did not answer in time".to_owned(),
            again: Again::Never,
        }
    }

    fn into_error(self, retry_after: Option<Duration>) -> SendError {
        SendError {
            error_type: self.error_type,
            retry_after,
            message: self.message,
        }
    }
}

/// Attempts until one succeeds, one cannot be retried, or the next one would begin after `end`.
pub(super) async fn until<F>(
    signal: Signal,
    end: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<Accepted, SendError>
where
    F: Future<Output = Result<Accepted, Failure>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0_u32;
    loop {
        attempts += 1;
        let failure = match timeout_at(end, attempt()).await {
            Ok(Ok(accepted)) => return Ok(accepted),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::timeout(),
        };
        let wait = match failure.again {
            Again::Never => return Err(failure.into_error(None)),
            Again::AfterPause => jittered(pause, random()),
            // A crowd that was sent away together should not come back together.
            Again::After(asked) => asked.min(LONGEST_WISH) + jittered(pause, random()) / 4,
        };
        if wait >= end.saturating_duration_since(Instant::now()) {
            let asked = match failure.again {
                Again::After(asked) => Some(asked.min(LONGEST_WISH)),
                _ => None,
            };
            return Err(failure.into_error(asked));
        }
        tracing::debug!(
            target: TARGET,
            signal = signal.name(),
            attempts,
            retry_in_s = wait.as_secs_f64(),
            error = %failure.message,
            "telemetry is sent again"
        );
        sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// From half to one and a half of `pause`, by a `share` of 0 to 1.
fn jittered(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(0.5 + share)
}

/// A number from 0 to 1; the standard library seeds every `RandomState` differently.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    fn failure(again: Again) -> Failure {
        Failure {
            error_type: "503",
            message: "HTTP 503".to_owned(),
            again,
        }
    }

    /// Fails as `failures` say one after the other, then succeeds; gives the times of the attempts since the start.
    async fn run(timeout: Duration, failures: &[Again]) -> (Result<Accepted, SendError>, Vec<Duration>) {
        let start = Instant::now();
        let mut times = Vec::new();
        let mut failures = failures.iter();
        let result = until(Signal::Logs, start + timeout, || {
            times.push(start.elapsed());
            let next = failures.next();
            ready(next.map_or(Ok(Accepted::default()), |again| Err(failure(*again))))
        })
        .await;
        (result, times)
    }

    fn between(times: &[Duration]) -> Vec<Duration> {
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest() {
        let (result, times) = run(Duration::from_secs(300), &[Again::AfterPause; 8]).await;
        assert_eq!(result, Ok(Accepted::default()));
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000];
        let pauses = between(&times);
        assert_eq!(pauses.len(), expected.len());
        for (pause, middle) in pauses.iter().zip(expected.map(Duration::from_millis)) {
            // A timer is precise to a millisecond.
            let range = middle / 2..=middle * 3 / 2 + Duration::from_millis(2);
            assert!(range.contains(pause), "{pause:?} of {pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_differ_from_one_sender_to_the_other() {
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let (_, times) = run(Duration::from_secs(60), &[Again::AfterPause]).await;
            pauses.push(times[1]);
        }
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 5, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_retried_is_tried_once() {
        let (result, times) = run(Duration::from_secs(10), &[Again::Never]).await;
        assert_eq!(result.unwrap_err().error_type, "503");
        assert_eq!(times.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_collectors_wish_is_waited_for() {
        let asked = Duration::from_secs(4);
        let (result, times) = run(Duration::from_secs(10), &[Again::After(asked)]).await;
        assert_eq!(result, Ok(Accepted::default()));
        assert!(times[1] >= asked && times[1] < asked + FIRST_PAUSE, "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_beyond_the_deadline_is_passed_on_at_once() {
        let asked = Duration::from_secs(30);
        let start = Instant::now();
        let (result, times) = run(Duration::from_secs(10), &[Again::After(asked)]).await;
        assert_eq!(result.unwrap_err().retry_after, Some(asked));
        assert_eq!(times.len(), 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_wish_is_longer_than_an_hour() {
        let (result, _) = run(Duration::from_secs(10), &[Again::After(Duration::MAX)]).await;
        assert_eq!(result.unwrap_err().retry_after, Some(LONGEST_WISH));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_with_the_deadline() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let (result, times) = run(timeout, &[Again::AfterPause; 100]).await;
        let error = result.unwrap_err();
        assert_eq!((error.error_type, error.retry_after), ("503", None));
        assert!(start.elapsed() < timeout, "{:?}", start.elapsed());
        assert!((3..=7).contains(&times.len()), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends_at_the_deadline() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(3));
        let result = until(Signal::Logs, start + timeout, std::future::pending).await;
        assert_eq!(result.unwrap_err().error_type, "timeout");
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[test]
    fn jitter_is_half_the_pause_either_way() {
        let pause = Duration::from_secs(2);
        assert_eq!(jittered(pause, 0.0), Duration::from_secs(1));
        assert_eq!(jittered(pause, 1.0), Duration::from_secs(3));
        assert!((0.0..=1.0).contains(&random()));
    }
}
