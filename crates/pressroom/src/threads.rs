//! Threads that serve requests. A connection stays on one of them, and so does the database connection that its reads
//! use. Handing a request from one processor core to another can cost more than serving it.

use std::{cell::Cell, io};

use tokio::runtime::{Builder, Handle, Runtime};

thread_local! {
    static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Threads that serve requests, each with a runtime. Dropping them abandons their tasks.
#[derive(Debug)]
pub struct RequestThreads(Vec<Runtime>);

impl RequestThreads {
    /// Starts `number` threads.
    ///
    /// # Errors
    /// Returns an error if the system does not allow another thread.
    pub fn start(number: usize) -> io::Result<Self> {
        let threads = (0..number).map(|index| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("requests")
                .on_thread_start(move || INDEX.set(Some(index)))
                .enable_all()
                .build()
        });
        Ok(Self(threads.collect::<io::Result<_>>()?))
    }

    /// Returns the runtimes, in the order of [`current`].
    #[must_use]
    pub fn runtimes(&self) -> Vec<Handle> {
        self.0.iter().map(|thread| thread.handle().clone()).collect()
    }
}

impl Drop for RequestThreads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // Waiting for a thread is not allowed in async code.
            thread.shutdown_background();
        }
    }
}

/// Returns the index of the current thread if it is one of [`RequestThreads`].
#[must_use]
pub fn current() -> Option<usize> {
    INDEX.get()
}
