//! The request to finish, as the loops of the export thread see it.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A collector that has been failing is not waited for longer than this at the end: a service that is developed without
/// one should stop at once.
const FAREWELL: Duration = Duration::from_secs(1);

/// Until when the end may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    asked: Instant,
    deadline: Instant,
}

impl End {
    /// An end that begins now and is over at `deadline`.
    pub(crate) fn by(deadline: Instant) -> Self {
        Self {
            asked: Instant::now(),
            deadline,
        }
    }

    /// When to give up on a collector that has or has not been failing.
    pub(crate) fn of(self, failing: bool) -> Instant {
        if failing {
            self.deadline.min(self.asked + FAREWELL)
        } else {
            self.deadline
        }
    }
}

/// Tells a loop that it has to finish.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<End>>);

impl Stop {
    /// With the way to ask for the end. Dropping that is not asking.
    pub(crate) fn new() -> (watch::Sender<Option<End>>, Self) {
        let (ask, asked) = watch::channel(None);
        (ask, Self(asked))
    }

    /// The end, when it was asked for.
    pub(crate) fn end(&self) -> Option<End> {
        *self.0.borrow()
    }

    /// Comes back when the end is asked for.
    pub(crate) async fn asked(&mut self) -> End {
        let end = self.0.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        match end {
            Some(end) => end,
            None => pending().await,
        }
    }

    /// Comes back when the time for the end is over.
    pub(crate) async fn over(&mut self, failing: bool) {
        let end = self.asked().await;
        sleep_until(end.of(failing)).await;
    }
}
