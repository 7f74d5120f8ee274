//! Panics as log events. The standard library prints a panic's message to standard error as it is, which may be
//! anything: the value that a `Result` had, a part of a row. Here a panic is one event with its place, the trace in
//! force, and its message only where that is a constant of the program.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;

/// Makes panics log events instead of lines on standard error. With `RUST_BACKTRACE` set the event has the stack. When
/// errors are not logged at all (`RUST_LOG=off`), panics are printed as before.
pub(crate) fn log_panics() {
    let printing = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !tracing::enabled!(target: "panic", tracing::Level::ERROR) {
            return printing(panic);
        }
        let place = panic.location();
        let stack = Backtrace::capture();
        tracing::event!(
            target: "panic",
            tracing::Level::ERROR,
            code.file.path = place.map(|place| place.file()),
            code.line.number = place.map(|place| place.line()),
            thread.name = std::thread::current().name(),
            exception.type = "panic",
            exception.message = panic_message(panic.payload()),
            exception.stacktrace = (stack.status() == BacktraceStatus::Captured).then(|| stack.to_string()),
            "panicked"
        );
    }));
}

/// The message of a caught panic where it is a constant of the program. One that was put together may hold anything,
/// secrets included, and is withheld.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> &'static str {
    // A literal is handed on as it is; what was formatted is a `String`.
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("with a message that may hold values, and is withheld")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_told_and_values_are_not() {
        let caught = panic::catch_unwind(|| panic!("a constant")).unwrap_err();
        assert_eq!(panic_message(caught.as_ref()), "a constant");
        let secret = String::from("hunter2");
        let caught = panic::catch_unwind(|| panic!("the secret is {secret}")).unwrap_err();
        assert!(panic_message(caught.as_ref()).contains("withheld"));
    }
}
