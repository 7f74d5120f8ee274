//! Panics as log events. The standard library prints the message of a panic to standard error, which can block the
//! thread, and a formatted message can contain secrets, such as the error of a `Result` or part of a row. The hook
//! in this module logs one event with the location and the current trace, and includes the message only if it is a
//! constant, or in development.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::output::{flush_output, print_error};

/// Maximum time to wait for the log output when the main thread panics, because the process may then end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum time to wait for the export when a panic aborts the process or may end it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether formatted messages of panics are shown.
static SHOWS_MESSAGES: AtomicBool = AtomicBool::new(false);

/// Sets whether formatted messages of panics are shown, as in development.
pub(crate) fn show_panic_messages(are_shown: bool) {
    SHOWS_MESSAGES.store(are_shown, Ordering::Relaxed);
}

/// Installs a panic hook that logs panics instead of printing them to standard error.
///
/// If `RUST_BACKTRACE` is set, the event includes the backtrace. If errors are not logged (`RUST_LOG=off`),
/// the hook prints one line to standard error.
///
/// `flush` exports everything: before the process aborts, and on the first panic of the main thread. If that panic ends
/// the process, telemetry recorded during unwinding is exported when [`Telemetry`](crate::Telemetry) is dropped. If it
/// is caught, later panics of the main thread, which may run an event loop, do not wait for an export.
pub(crate) fn log_panics(flush: fn(Duration)) {
    static FLUSHED: Once = Once::new();
    panic::set_hook(Box::new(move |panic| {
        let location = panic.location();
        let message = panic_message(panic.payload());
        let thread = thread::current();
        let thread = thread.name();
        if !tracing::enabled!(target: "panic", tracing::Level::ERROR) {
            let place = location.map_or("an unknown location".to_owned(), ToString::to_string);
            let thread = thread.unwrap_or("<unnamed>");
            print_error(format!("thread '{thread}' panicked at {place}: {message}\n"));
        }
        let stack = Backtrace::capture();
        tracing::event!(
            target: "panic",
            tracing::Level::ERROR,
            code.file.path = location.map(|location| location.file()),
            code.line.number = location.map(|location| location.line()),
            thread.name = thread,
            exception.type = "panic",
            exception.message = &*message,
            exception.stacktrace = (stack.status() == BacktraceStatus::Captured).then(|| stack.to_string()),
            "panicked"
        );
        if thread == Some("main") || cfg!(panic = "abort") {
            FLUSHED.call_once(|| flush(EXPORT_TIMEOUT));
            flush_output(FLUSH_TIMEOUT);
        }
    }));
}

/// Returns the message of a caught panic if it is a constant, otherwise a fixed text.
///
/// Formatted messages are withheld because they can contain secrets, unless the resource says
/// `deployment.environment.name=development`.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> Cow<'static, str> {
    // The payload is a `&'static str` for a literal message and a `String` for a formatted message.
    if let Some(constant) = payload.downcast_ref::<&'static str>() {
        return Cow::Borrowed(constant);
    }
    let formatted = payload.downcast_ref::<String>();
    match formatted.filter(|_| SHOWS_MESSAGES.load(Ordering::Relaxed)) {
        Some(formatted) => Cow::Owned(formatted.clone()),
        None => Cow::Borrowed("message withheld because it may contain sensitive values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_message_is_returned_and_a_formatted_one_is_withheld() {
        let caught = panic::catch_unwind(|| panic!("a constant")).unwrap_err();
        assert_eq!(panic_message(caught.as_ref()), "a constant");
        let secret = String::from("hunter2");
        let caught = panic::catch_unwind(|| panic!("the secret is {secret}")).unwrap_err();
        assert!(panic_message(caught.as_ref()).contains("withheld"));
    }
}
