//! Accepts connections from several listeners, and retries after errors.

use std::{
    future::poll_fn,
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

/// First and maximum delay before the next attempt to accept when the system lacks file descriptors or memory.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// One or more listeners that a server accepts connections from.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<TcpListener>,
    /// Index of the listener that is polled first. It rotates, so none of them is starved.
    first: usize,
    errors: AcceptErrors,
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        vec![listener].into()
    }
}

impl From<Vec<TcpListener>> for Listeners {
    fn from(listeners: Vec<TcpListener>) -> Self {
        Self {
            listeners,
            first: 0,
            errors: AcceptErrors::default(),
        }
    }
}

impl Listeners {
    /// Accepts a connection. Logs errors of the listeners and retries. Cancel safe.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(retry_at) = self.errors.retry_at {
                sleep_until(retry_at).await;
            }
            match self.next().await {
                Ok(accepted) => {
                    self.errors.end();
                    return accepted;
                }
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(%error, "connection failed before it was accepted");
                }
                Err(error) => self.errors.add(&error),
            }
        }
    }

    async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let (before, after) = self.listeners.split_at(self.first);
            for (i, listener) in after.iter().chain(before).enumerate() {
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    self.first = (self.first + i + 1) % self.listeners.len();
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Whether the error concerns the accepted connection only, not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Consecutive errors of the listeners. The first error and the recovery are logged.
#[derive(Debug, Default)]
struct AcceptErrors {
    number: u32,
    retry_at: Option<Instant>,
}

impl AcceptErrors {
    fn add(&mut self, error: &io::Error) {
        if self.number == 0 {
            tracing::error!(%error, "cannot accept connections; retrying");
        }
        self.retry_at = Some(Instant::now() + delay_after(self.number));
        self.number = self.number.saturating_add(1);
    }

    fn end(&mut self) {
        let Self { number, .. } = std::mem::take(self);
        if number > 0 {
            tracing::info!("accepting connections again after {number} errors");
        }
    }
}

/// Returns the delay after an error that follows `earlier` others. It doubles with each error, and half of it is random.
fn delay_after(earlier: u32) -> Duration {
    let (first, max) = BACK_OFF;
    let delay = first.saturating_mul(2_u32.saturating_pow(earlier)).min(max);
    let thousandths = u32::try_from(RandomState::new().hash_one(earlier) % 1000).unwrap_or(0);
    delay / 2 + delay / 2 * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_between_attempts_grows_to_a_second_and_is_random() {
        for (earlier, most) in [(0, 50), (1, 100), (2, 200), (5, 1000), (u32::MAX, 1000)] {
            let most = Duration::from_millis(most);
            let delays: Vec<_> = (0..20).map(|_| delay_after(earlier)).collect();
            assert!(
                delays.iter().all(|delay| (most / 2..=most).contains(delay)),
                "{delays:?}"
            );
            assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
        }
    }
}
