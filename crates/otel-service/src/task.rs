//! Tasks and blocking threads of tokio that keep the context of the code that starts them.

use std::pin::pin;

use opentelemetry::Context;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::context::within;

/// Spawns a task, as `tokio::spawn` does, in the current context: its spans and log records belong to the
/// current trace, and its log records have the fields of the enclosing `tracing` spans.
///
/// A task of `tokio::spawn` itself starts without a context.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let cx = Context::current();
    let work = async move { within(&cx, pin!(work)).await };
    tokio::spawn(work.instrument(tracing::Span::current()))
}

/// Runs blocking code, as `tokio::task::spawn_blocking` does, in the current context, as [`spawn`] does.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (cx, span) = (Context::current(), tracing::Span::current());
    tokio::task::spawn_blocking(move || {
        span.in_scope(|| {
            let _attached = cx.attach();
            work()
        })
    })
}
