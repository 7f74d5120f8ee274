//! Signals and the shutdown of a process. SIGTERM, SIGINT or SIGQUIT stops the parts of the process, and a second one
//! aborts it. A part that ends unexpectedly stops the other parts and makes the process fail.

use std::{
    future::{Future, poll_fn},
    io::{self, IsTerminal as _},
    sync::LazyLock,
    task::Poll,
    time::Duration,
};

use rustix::process::Signal as Raw;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
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
        let mut signals = Signals::new(requests_to_stop().chain(reasons_to_stop()))?;
        let mut failure = FirstFailure::default();
        tokio::select! {
            biased;
            name = signals.recv() => telemetry::info!("{name} received, stopping"),
            () = self.shutdown.cancelled() => telemetry::info!("stopping"),
            Some(ended) = self.parts.join_next() => failure.record(EARLY, early_end(ended)),
        }
        // The other signals may repeat without a request to abort.
        signals.0.truncate(requests_to_stop().count());
        tokio::spawn(async move {
            signals.recv().await;
            telemetry::warn!("received a second signal, aborting");
            telemetry::flush_output(FLUSH_TIMEOUT);
            std::process::exit(ABORTED);
        });
        draining();
        // There is no delay if the parts are already stopping.
        if failure.0.is_none() && !self.shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                Some(ended) = self.parts.join_next(), if !self.delay.is_zero() => {
                    failure.record(EARLY, early_end(ended));
                }
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
                failure.record("a component failed while stopping", error);
            }
        });
        if stopped.await.is_err() {
            failure.record("stopping took too long", anyhow::anyhow!(LATE));
        }
        failure.0.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Log message if a part ends before the process stops.
const EARLY: &str = "a component failed; stopping";

/// Returns the error of a part that ended before the process stopped.
fn early_end(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended unexpectedly"),
        Ok((name, Err(error))) => error.context(name),
        Err(error) => error.into(),
    }
}

/// First failure of a process. Later ones follow from it, so they are not logged.
#[derive(Default)]
struct FirstFailure(Option<Logged>);

impl FirstFailure {
    fn record(&mut self, message: &'static str, error: anyhow::Error) {
        if self.0.is_none() {
            self.0 = Some(Logged::new(error, message));
        }
    }
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

type NamedSignal = (&'static str, SignalKind);

/// Signals with which operators and supervisors stop a process.
fn requests_to_stop() -> impl Iterator<Item = NamedSignal> {
    [
        ("SIGTERM", SignalKind::terminate()),
        ("SIGINT", SignalKind::interrupt()),
        ("SIGQUIT", SignalKind::quit()),
    ]
    .into_iter()
}

/// Signals that announce that the process cannot continue for long.
fn reasons_to_stop() -> impl Iterator<Item = NamedSignal> {
    let hangup = has_terminal().then_some(("SIGHUP", SignalKind::hangup()));
    #[cfg(target_os = "linux")]
    let power = Some(("SIGPWR", raw(Raw::POWER)));
    #[cfg(not(target_os = "linux"))]
    let power = None;
    [hangup, power, Some(("SIGXCPU", raw(Raw::XCPU)))]
        .into_iter()
        .flatten()
}

/// Signals that make other programs reopen, reload or report something, and signals of timers and limits. By default,
/// they end or suspend a process immediately.
fn ignored() -> impl Iterator<Item = NamedSignal> {
    // The terminal sends these to control jobs.
    let terminal = [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGTTIN", raw(Raw::TTIN)),
        ("SIGTTOU", raw(Raw::TTOU)),
    ];
    let others = [
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
        ("SIGALRM", SignalKind::alarm()),
        ("SIGVTALRM", raw(Raw::VTALARM)),
        ("SIGPROF", raw(Raw::PROF)),
        ("SIGIO", SignalKind::io()),
        // A write beyond the limit of a file's size then fails with an error.
        ("SIGXFSZ", raw(Raw::XFSZ)),
    ];
    let terminal = terminal.into_iter().filter(|_| !has_terminal());
    terminal.chain(others)
}

fn raw(signal: Raw) -> SignalKind {
    SignalKind::from_raw(signal.as_raw())
}

/// Whether the process was started from a terminal. SIGHUP then means that the terminal is closed.
fn has_terminal() -> bool {
    static AT_START: LazyLock<bool> = LazyLock::new(|| io::stdin().is_terminal());
    *AT_START
}

/// Receives any of several signals.
struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    fn new(kinds: impl Iterator<Item = NamedSignal>) -> io::Result<Self> {
        let signals = kinds.map(|(name, kind)| Ok((name, signal(kind)?)));
        Ok(Self(signals.collect::<io::Result<_>>()?))
    }

    /// Waits for the next signal, and returns its name.
    async fn recv(&mut self) -> &'static str {
        poll_fn(|cx| {
            let mut signals = self.0.iter_mut();
            let received =
                signals.find_map(|(name, signal)| signal.poll_recv(cx).is_ready().then_some(*name));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Ignores the signals that do not stop a process, and logs the first of each kind.
///
/// # Errors
/// Returns an error if a signal handler cannot be installed.
pub fn ignore_signals() -> io::Result<()> {
    for (name, kind) in ignored() {
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

    #[test]
    fn only_the_first_failure_is_logged() {
        let mut failure = FirstFailure::default();
        for error in ["first", "second"] {
            failure.record(EARLY, anyhow::anyhow!(error));
        }
        assert_eq!(failure.0.unwrap().to_string(), "first");
    }
}
