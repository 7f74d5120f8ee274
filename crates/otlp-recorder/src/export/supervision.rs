//! Restarts a loop that panics, a few times and with increasing delays.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use super::shutdown::Shutdown;
use crate::log_target::LOG_TARGET;
use crate::signal::Signal;

/// Maximum number of starts of one loop.
const MAX_STARTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Runs the futures that `make` returns, one after the other, until one completes without a panic, and
/// returns its output. Returns false after the maximum number of starts, or if `make` returns `None`.
pub(super) async fn supervised<L>(
    signal: Signal,
    mut shutdown: Shutdown,
    mut make: impl FnMut() -> Option<L>,
) -> bool
where
    L: Future<Output = bool> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    for _ in 0..MAX_STARTS {
        let Some(work) = make() else { break };
        match tokio::spawn(work).await {
            Ok(delivered) => return delivered,
            // The panic message may quote exported data, so it is left to the panic hook of the process.
            Err(_) => tracing::error!(
                target: LOG_TARGET,
                signal = signal.name(),
                "the export loop of a signal panicked and is restarted"
            ),
        }
        tokio::select! {
            () = sleep(pause) => pause *= 2,
            _ = shutdown.requested() => {}
        }
    }
    tracing::error!(
        target: LOG_TARGET,
        signal = signal.name(),
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
        let (_ask, shutdown) = Shutdown::new();
        let started = Instant::now();
        assert_eq!(run(2, shutdown).await, (true, 3));
        assert_eq!(log.count("panicked"), 2);
        assert_eq!(log.count("no longer exported"), 0);
        // Pauses of one and of two seconds.
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_always_panics_is_abandoned_after_the_maximum_number_of_starts() {
        let log = LogEvents::new();
        let (_ask, shutdown) = Shutdown::new();
        assert_eq!(run(u32::MAX, shutdown).await, (false, MAX_STARTS));
        assert_eq!(log.count("no longer exported"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_does_not_wait_for_a_pause() {
        let (ask, shutdown) = Shutdown::new();
        let started = Instant::now();
        ask.send_replace(Some(ShutdownLimit::new(started + Duration::from_secs(5))));
        assert_eq!(run(2, shutdown).await, (true, 3));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
