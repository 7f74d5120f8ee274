//! Panics as log events. The standard library prints the message of a panic to standard error; a formatted
//! message can hold secrets, such as the error of a `Result` or part of a row. Here a panic is one event with
//! its location, the current trace, and its message only if the message is a constant.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

/// Installs a panic hook that logs panics instead of printing them to standard error.
///
/// With `RUST_BACKTRACE` set, the event has the stack. If errors are not logged (`RUST_LOG=off`), panics are
/// printed by the previous hook.
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

/// Returns the message of a caught panic if it is a constant.
///
/// A formatted message can hold secrets, so a fixed text stands in for it.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> &'static str {
    // The payload of a literal message is a `&'static str`, that of a formatted message a `String`.
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
