//! Restarts a loop that panics, a few times and with exponential back-off.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use super::shutdown::Shutdown;
use crate::backoff::Backoff;
use crate::log_target::LOG_TARGET;
use crate::signal::Signal;

/// Maximum number of starts of one loop.
const MAX_STARTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Runs the loops that `make` returns, one after the other, until one ends without a panic, and returns its
/// result. Returns false after the maximum number of starts, or if `make` returns `None`.
pub(super) async fn supervised<L>(
    signal: Signal,
    mut shutdown: Shutdown,
    mut make: impl FnMut() -> Option<L>,
) -> bool
where
    L: Future<Output = bool> + Send + 'static,
{
    let mut backoff = Backoff::new(FIRST_DELAY, MAX_DELAY);
    for start in 1..=MAX_STARTS {
        let Some(work) = make() else { break };
        if let Ok(delivered) = tokio::spawn(work).await {
            return delivered;
        }
        if start == MAX_STARTS {
            break;
        }
        let delay = backoff.next_delay();
        // The panic message may quote exported data, so it is left to the panic hook of the process.
        tracing::event!(
            target: LOG_TARGET,
            tracing::Level::ERROR,
            telemetry.signal = signal.name(),
            retry.delay = delay.as_secs_f64(),
            "the export loop of a signal panicked and is restarted"
        );
        tokio::select! {
            () = sleep(delay) => {}
            _ = shutdown.requested() => {}
        }
    }
    tracing::event!(
        target: LOG_TARGET,
        tracing::Level::ERROR,
        telemetry.signal = signal.name(),
        "the export loop of a signal panicked too often; the signal is no longer exported"
    );
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::super::shutdown::ShutdownLimit;
    use super::super::testing::LogEvents;
    use super::*;

    /// Supervises a loop that panics `panics` times and then ends; returns its result and the number of
    /// starts.
    async fn run(panics: u32, shutdown: Shutdown) -> (bool, u32) {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let delivered = supervised(Signal::Traces, shutdown, move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            Some(async move {
                assert!(start >= panics, "expected by the test");
                true
            })
        })
        .await;
        (delivered, starts.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_logged_and_restarted() {
        let log = LogEvents::new();
        let (_stop, shutdown) = Shutdown::new();
        let started = Instant::now();
        assert_eq!(run(2, shutdown).await, (true, 3));
        assert_eq!(log.count("panicked"), 2);
        assert_eq!(log.count("no longer exported"), 0);
        // Back-off of one and of two seconds, with jitter.
        let elapsed = started.elapsed().as_secs_f64();
        assert!((1.5..=4.6).contains(&elapsed), "{elapsed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_always_panics_is_abandoned_after_the_maximum_number_of_starts() {
        let log = LogEvents::new();
        let (_stop, shutdown) = Shutdown::new();
        assert_eq!(run(u32::MAX, shutdown).await, (false, MAX_STARTS));
        assert_eq!(log.count("no longer exported"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_skips_the_back_off() {
        let (stop, shutdown) = Shutdown::new();
        let started = Instant::now();
        stop.send_replace(Some(ShutdownLimit::new(started + Duration::from_secs(5))));
        assert_eq!(run(2, shutdown).await, (true, 3));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
