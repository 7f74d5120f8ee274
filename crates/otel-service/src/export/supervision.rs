//! Keeps a loop running: one that panics is reported and started again, a few times and with growing pauses.

use std::future::Future;
use std::time::Duration;

use tokio::time::sleep;

use super::delivery::TARGET;
use super::stop::Stop;

/// A loop that has panicked as often as this is not started again.
const MOST_STARTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Runs what `make` makes, and again when it panics. Gives what it gave, or `false` when it is given up.
pub(super) async fn supervised<L>(
    signal: &'static str,
    mut stop: Stop,
    mut make: impl FnMut() -> Option<L>,
) -> bool
where
    L: Future<Output = bool> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    for _ in 0..MOST_STARTS {
        let Some(work) = make() else { break };
        match tokio::spawn(work).await {
            Ok(delivered) => return delivered,
            // What the panic said may quote what was exported; the process's panic hook has it.
            Err(_) => tracing::error!(
                target: TARGET,
                signal,
                "the export of a signal panicked; it is started again"
            ),
        }
        tokio::select! {
            () = sleep(pause) => pause *= 2,
            _ = stop.asked() => {}
        }
    }
    tracing::error!(target: TARGET, signal, "a signal is no longer exported");
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::super::stop::End;
    use super::super::testing::Told;
    use super::*;

    /// A loop that panics `panics` times before it comes to its end.
    async fn run(panics: u32, stop: Stop) -> (bool, u32) {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let delivered = supervised("traces", stop, move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            Some(async move {
                assert!(start >= panics, "of the test");
                true
            })
        })
        .await;
        (delivered, starts.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_reported_and_started_again() {
        let told = Told::new();
        let (_ask, stop) = Stop::new();
        let started = Instant::now();
        assert_eq!(run(2, stop).await, (true, 3));
        assert_eq!(told.count("panicked"), 2);
        assert_eq!(told.count("no longer exported"), 0);
        // Pauses of one and of two seconds.
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_always_panics_is_given_up() {
        let told = Told::new();
        let (_ask, stop) = Stop::new();
        assert_eq!(run(u32::MAX, stop).await, (false, MOST_STARTS));
        assert_eq!(told.count("no longer exported"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_not_kept_waiting_by_a_pause() {
        let (ask, stop) = Stop::new();
        let started = Instant::now();
        ask.send_replace(Some(End::by(started + Duration::from_secs(5))));
        assert_eq!(run(2, stop).await, (true, 3));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
