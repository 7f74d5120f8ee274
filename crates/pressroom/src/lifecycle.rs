//! Shutdown of a process. A signal stops the parts of the process, and a second signal aborts it. A part that ends
//! unexpectedly stops the other parts and makes the process fail.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal: 128 + SIGTERM, as shells report it.
const ABORTED: i32 = 143;

/// Time added to the grace period, which the parts observe themselves.
const GRACE_MARGIN: Duration = Duration::from_secs(2);

/// Error if parts do not stop in time.
const LATE: &str = "work was still in progress after the grace period; increase SHUTDOWN_GRACE";

/// Parts of a process, which run concurrently until the process stops.
#[derive(Debug, Default)]
pub struct Lifecycle {
    shutdown: CancellationToken,
    parts: JoinSet<(&'static str, anyhow::Result<()>)>,
    delay: Duration,
}

impl Lifecycle {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all parts continue to run for `delay` after the signal, for load balancers to detect failing readiness
    /// checks.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Returns a token that is cancelled when the process stops.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs a part, which must end soon after [`Self::shutdown`] is cancelled, and not before. A part that stops for
    /// another reason must cancel the token itself.
    pub fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.parts.spawn(async move { (name, part.await) });
    }

    /// Runs until SIGTERM, SIGINT, or the cancellation of the token. Then calls `draining`, lets the parts
    /// continue for the delay, stops them, and waits for them up to the grace period.
    ///
    /// # Errors
    /// Returns an error if a part failed, ended unexpectedly, or did not stop in time.
    pub async fn run(mut self, grace: Duration, draining: impl FnOnce()) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut failure = None;
        tokio::select! {
            biased;
            _ = terminate.recv() => telemetry::info!("SIGTERM received, stopping"),
            _ = interrupt.recv() => telemetry::info!("SIGINT received, stopping"),
            () = self.shutdown.cancelled() => telemetry::info!("stopping"),
            Some(ended) = self.parts.join_next() => failure = Some(early_end(ended)),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            telemetry::warn!("received a second signal, aborting");
            std::process::exit(ABORTED);
        });
        draining();
        // There is no delay if the parts are already stopping.
        if failure.is_none() && !self.shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                Some(ended) = self.parts.join_next(), if !self.delay.is_zero() => failure = Some(early_end(ended)),
            }
        }
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(grace + GRACE_MARGIN, async {
            while let Some(ended) = self.parts.join_next().await {
                let error = match ended {
                    Ok((_, Ok(()))) => continue,
                    Ok((name, Err(error))) => error.context(name),
                    Err(error) => error.into(),
                };
                failure.get_or_insert(error);
            }
        });
        if stopped.await.is_err() {
            failure.get_or_insert_with(|| anyhow::anyhow!(LATE));
        }
        failure.map_or(Ok(()), Err)
    }
}

fn early_end(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    let error = match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended unexpectedly"),
        Ok((name, Err(error))) => error.context(name),
        Err(error) => error.into(),
    };
    telemetry::error!(error = format!("{error:#}"), "stopping");
    error
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs on one thread, because the signal must arrive while it is awaited. No other test in this process sends
    /// signals.
    #[tokio::test]
    async fn a_part_that_fails_during_the_delay_ends_it_and_the_others() {
        let mut lifecycle = Lifecycle::new().delay(Duration::from_hours(1));
        let (drained, draining) = tokio::sync::oneshot::channel();
        lifecycle.spawn("broken", async move {
            let pid = std::process::id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status()?;
            draining.await?;
            anyhow::bail!("no more")
        });
        let shutdown = lifecycle.shutdown();
        lifecycle.spawn("sound", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        let drain = || drained.send(()).expect("the test waits for it");
        let running = lifecycle.run(Duration::from_hours(1), drain);
        let error = tokio::time::timeout(Duration::from_secs(20), running).await;
        assert_eq!(format!("{:#}", error.unwrap().unwrap_err()), "broken: no more");
    }
}
