//! Signals and the shutdown of a process. SIGTERM or SIGINT stops the parts of the process, and a second one aborts
//! it. A part that ends unexpectedly stops the other parts and makes the process fail.

use std::{future::Future, io::IsTerminal as _, sync::LazyLock, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal: 128 + SIGTERM, as shells report it.
const ABORTED: i32 = 143;

/// Maximum time to write the remaining log output before an abort.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

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
    /// Returns a [`Logged`] error if a part failed, ended unexpectedly, or did not stop in time.
    pub async fn run(mut self, grace: Duration, draining: impl FnOnce()) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut failure: Option<Logged> = None;
        tokio::select! {
            biased;
            _ = terminate.recv() => telemetry::info!("SIGTERM received, stopping"),
            _ = interrupt.recv() => telemetry::info!("SIGINT received, stopping"),
            _ = hangup.recv(), if hangup_stops() => telemetry::info!("SIGHUP received, stopping"),
            () = self.shutdown.cancelled() => telemetry::info!("stopping"),
            Some(ended) = self.parts.join_next() => failure = Some(early_end(ended)),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            telemetry::warn!("received a second signal, aborting");
            telemetry::flush_output(FLUSH_TIMEOUT);
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
                failure.get_or_insert_with(|| Logged::new(error, "a component failed while stopping"));
            }
        });
        if stopped.await.is_err() {
            failure.get_or_insert_with(|| Logged::new(anyhow::anyhow!(LATE), "stopping took too long"));
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn early_end(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> Logged {
    let error = match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended unexpectedly"),
        Ok((name, Err(error))) => error.context(name),
        Err(error) => error.into(),
    };
    Logged::new(error, "a component failed; stopping")
}

/// An error that has been logged.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Logged(anyhow::Error);

impl Logged {
    fn new(error: anyhow::Error, message: &'static str) -> Self {
        telemetry::error!(error = format!("{error:#}"), "{message}");
        Self(error)
    }
}

/// Whether SIGHUP stops the process. It does if standard input is a terminal: the signal then means that the
/// terminal was closed.
fn hangup_stops() -> bool {
    static AT_START: LazyLock<bool> = LazyLock::new(|| std::io::stdin().is_terminal());
    *AT_START
}

/// Ignores the signals that operators' tools send to make other programs reopen or reload files, and logs the first
/// of each kind. By default, each of them would end the process at once.
///
/// # Errors
/// Returns an error if a signal handler cannot be installed.
pub fn ignore_signals() -> std::io::Result<()> {
    for (name, kind, ignored) in [
        ("SIGHUP", SignalKind::hangup(), !hangup_stops()),
        ("SIGUSR1", SignalKind::user_defined1(), true),
        ("SIGUSR2", SignalKind::user_defined2(), true),
    ] {
        if !ignored {
            continue;
        }
        // The handler stays installed after the task has ended.
        let mut signals = signal(kind)?;
        tokio::spawn(async move {
            signals.recv().await;
            telemetry::info!("{name} received and ignored; SIGTERM stops the process");
        });
    }
    Ok(())
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
