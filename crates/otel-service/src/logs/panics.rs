//! Panics as log events. The standard library prints the message of a panic to standard error; a formatted
//! message can contain secrets, such as the error of a `Result` or part of a row. The hook in this module
//! logs one event with the location and the current trace, and includes the message only if it is a constant.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

/// Installs a panic hook that logs panics instead of printing them to standard error.
///
/// If `RUST_BACKTRACE` is set, the event includes the backtrace. If errors are not logged (`RUST_LOG=off`),
/// the previous hook prints panics.
pub(crate) fn log_panics() {
    let previous_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(target: "panic", tracing::Level::ERROR) {
            return previous_hook(panic);
        }
        let location = panic.location();
        let stack = Backtrace::capture();
        tracing::event!(
            target: "panic",
            tracing::Level::ERROR,
            code.file.path = location.map(|location| location.file()),
            code.line.number = location.map(|location| location.line()),
            thread.name = std::thread::current().name(),
            exception.type = "panic",
            exception.message = panic_message(panic.payload()),
            exception.stacktrace = (stack.status() == BacktraceStatus::Captured).then(|| stack.to_string()),
            "panicked"
        );
    }));
}

/// Returns the message of a caught panic if it is a constant, otherwise a fixed text.
///
/// Formatted messages are withheld because they can contain secrets.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> &'static str {
    // The payload is a `&'static str` for a literal message and a `String` for a formatted message.
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("message withheld because it may contain sensitive values")
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
