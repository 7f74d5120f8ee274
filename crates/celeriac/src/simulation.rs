//! Replaces time, random numbers, threads, sockets and the names of the process and host, so that a simulation
//! can run this crate in one thread and repeat a run exactly. Compiled only with the feature `__simulation`,
//! which is not part of the API.
//!
//! An environment applies to the thread that installs it. Monotonic time is that of tokio, whose clock a
//! simulation pauses.

use std::{cell::RefCell, fmt, io, sync::Arc};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a simulated server.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Simulated surroundings of all processes in a thread.
pub trait Environment {
    /// Returns the wall-clock time.
    fn now(&self) -> Timestamp;

    /// Returns random bits.
    fn random(&self) -> u128;

    /// Connects to the server with this host name, which identifies the process that connects.
    fn connect(&self, host: &str) -> BoxFuture<'static, io::Result<Box<dyn Socket>>>;
}

thread_local! {
    static ENVIRONMENT: RefCell<Option<Arc<dyn Environment>>> = const { RefCell::new(None) };
}

/// Environment that applies to the thread until it is dropped.
#[must_use]
pub struct Installed(());

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Installed")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        ENVIRONMENT.take();
    }
}

/// Installs an environment for this thread.
pub fn install(environment: Arc<dyn Environment>) -> Installed {
    ENVIRONMENT.set(Some(environment));
    Installed(())
}

/// Returns the environment of this thread, if there is one.
pub(crate) fn current() -> Option<Arc<dyn Environment>> {
    ENVIRONMENT.with_borrow(Clone::clone)
}
