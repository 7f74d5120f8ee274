//! Retries: exponential back-off with jitter, or the delay that the collector requests, limited by the
//! deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::outcome::{Accepted, Retry, SendError};
use crate::backoff::Backoff;
use crate::log_target::LOG_TARGET;
use crate::signal::Signal;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(15);

/// Maximum retry delay accepted from a collector.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Retries until an attempt succeeds, an error is permanent, or the next attempt would start after `end`.
pub(super) async fn until<F>(
    signal: Signal,
    end: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<Accepted, SendError>
where
    F: Future<Output = Result<Accepted, SendError>>,
{
    let mut backoff = Backoff::new(FIRST_DELAY, MAX_DELAY);
    let mut attempts = 0_u32;
    loop {
        attempts += 1;
        let mut error = match timeout_at(end, attempt()).await {
            Ok(Ok(accepted)) => return Ok(accepted),
            Ok(Err(error)) => error,
            Err(_) => SendError::timeout(),
        };
        let delay = match &mut error.retry {
            Retry::Never | Retry::Smaller(_) => return Err(error),
            Retry::AfterBackoff => backoff.next_delay(),
            Retry::After(requested) => {
                *requested = MAX_RETRY_AFTER.min(*requested);
                // Jitter keeps clients that failed at the same time from retrying at the same time.
                *requested + backoff.next_delay() / 4
            }
        };
        if delay >= end.saturating_duration_since(Instant::now()) {
            return Err(error);
        }
        tracing::event!(
            target: LOG_TARGET,
            tracing::Level::DEBUG,
            telemetry.signal = signal.name(),
            retry.attempts = attempts,
            retry.delay = delay.as_secs_f64(),
            error = %error.message,
            "retrying an export"
        );
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    fn failed(retry: Retry) -> SendError {
        SendError {
            error_type: "503".into(),
            message: "HTTP 503".to_owned(),
            retry,
        }
    }

    /// Fails with each of `failures` in turn, then succeeds; returns the times of the attempts since the
    /// start.
    async fn run(timeout: Duration, failures: &[Retry]) -> (Result<Accepted, SendError>, Vec<Duration>) {
        let start = Instant::now();
        let mut times = Vec::new();
        let mut failures = failures.iter();
        let result = until(Signal::Logs, start + timeout, || {
            times.push(start.elapsed());
            let next = failures.next();
            ready(next.map_or(Ok(Accepted::default()), |retry| Err(failed(*retry))))
        })
        .await;
        (result, times)
    }

    fn delays(times: &[Duration]) -> Vec<Duration> {
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn delays_double_up_to_the_maximum() {
        let (result, times) = run(Duration::from_secs(300), &[Retry::AfterBackoff; 8]).await;
        assert_eq!(result, Ok(Accepted::default()));
        let expected = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000];
        let delays = delays(&times);
        assert_eq!(delays.len(), expected.len());
        for (delay, middle) in delays.iter().zip(expected.map(Duration::from_millis)) {
            // Timers have a resolution of a millisecond.
            let range = middle / 2..=middle * 3 / 2 + Duration::from_millis(2);
            assert!(range.contains(delay), "{delay:?} of {delays:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn delays_differ_between_senders() {
        let mut delays = Vec::new();
        for _ in 0..20 {
            let (_, times) = run(Duration::from_secs(60), &[Retry::AfterBackoff]).await;
            delays.push(times[1]);
        }
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 5, "{delays:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_is_not_retried() {
        let (result, times) = run(Duration::from_secs(10), &[Retry::Never]).await;
        assert_eq!(result.unwrap_err().error_type, "503");
        assert_eq!(times.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_for_the_requested_delay() {
        let requested = Duration::from_secs(4);
        let (result, times) = run(Duration::from_secs(10), &[Retry::After(requested)]).await;
        assert_eq!(result, Ok(Accepted::default()));
        assert!(
            times[1] >= requested && times[1] < requested + FIRST_DELAY,
            "{times:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_delay_beyond_the_deadline_is_returned_immediately() {
        let requested = Duration::from_secs(30);
        let start = Instant::now();
        let (result, times) = run(Duration::from_secs(10), &[Retry::After(requested)]).await;
        assert_eq!(result.unwrap_err().retry, Retry::After(requested));
        assert_eq!(times.len(), 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_delay_is_at_most_an_hour() {
        let (result, _) = run(Duration::from_secs(10), &[Retry::After(Duration::MAX)]).await;
        assert_eq!(result.unwrap_err().retry, Retry::After(MAX_RETRY_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_with_the_deadline() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let (result, times) = run(timeout, &[Retry::AfterBackoff; 100]).await;
        let error = result.unwrap_err();
        assert_eq!((&*error.error_type, error.retry), ("503", Retry::AfterBackoff));
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
}
