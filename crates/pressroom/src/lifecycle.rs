//! How a process ends: a signal asks it to stop, a second one tears it down, and a part that
//! ended by itself takes the whole down with a failing exit code.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal: 128 + SIGTERM, as shells count it.
const ABORTED: i32 = 143;

/// The parts of a process that run side by side until it is asked to stop.
#[derive(Debug, Default)]
pub struct Lifecycle {
    shutdown: CancellationToken,
    parts: JoinSet<(&'static str, anyhow::Result<()>)>,
}

/// How much time the end of a process takes.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// For how long everything goes on, so that whoever sends requests here notices that it should not.
    pub delay: Duration,
    /// How long the parts may take to stop after that.
    pub grace: Duration,
}

impl Lifecycle {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is cancelled when the process is to stop.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs a part. It has to end soon after [`Self::shutdown`], and not before; one that has been asked to stop by
    /// other means cancels that itself.
    pub fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.parts.spawn(async move { (name, part.await) });
    }

    /// Runs until SIGTERM, SIGINT or a part says that all are to stop. Then calls `draining`, lets the parts go on for
    /// `ending.delay`, asks each to stop and waits for them, `ending.grace` at most.
    ///
    /// # Errors
    /// When a part failed, ended by itself, or did not end in time.
    pub async fn run(mut self, ending: Ending, draining: impl FnOnce()) -> anyhow::Result<()> {
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
            telemetry::warn!("second signal received, aborting");
            std::process::exit(ABORTED);
        });
        draining();
        // Parts that were told already are ending.
        if failure.is_none() && !self.shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(ending.delay) => {}
                Some(ended) = self.parts.join_next(), if !ending.delay.is_zero() => failure = Some(early_end(ended)),
            }
        }
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(ending.grace, async {
            while let Some(ended) = self.parts.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((name, Err(error))) => failure = failure.take().or(Some(error.context(name))),
                    Err(error) => failure = failure.take().or(Some(error.into())),
                }
            }
        });
        if stopped.await.is_err() {
            failure = failure.or_else(|| Some(anyhow::anyhow!("not stopped within the grace period")));
        }
        failure.map_or(Ok(()), Err)
    }
}

fn early_end(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    let error = match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended by itself"),
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

    /// One thread, so that the signal is sent when it is waited for, and no other test of this process sends any.
    #[tokio::test]
    async fn a_part_that_fails_during_the_delay_ends_it_and_the_others() {
        let mut lifecycle = Lifecycle::new();
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
        let ending = Ending {
            delay: Duration::from_hours(1),
            grace: Duration::from_hours(1),
        };
        let running = lifecycle.run(ending, || drained.send(()).expect("it is waited for"));
        let error = tokio::time::timeout(Duration::from_secs(20), running).await;
        assert_eq!(format!("{:#}", error.unwrap().unwrap_err()), "broken: no more");
    }
}
