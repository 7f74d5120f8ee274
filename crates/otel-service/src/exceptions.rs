//! Recording of exceptions, as span events or as log records, which `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN` selects.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use crate::recorder;
use crate::untraced::is_untraced;

/// `error.type` of work that panicked.
pub(crate) const PANIC: &str = "panic";

static SIGNAL: OnceLock<ExceptionSignal> = OnceLock::new();

/// The signal that has exceptions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum ExceptionSignal {
    #[default]
    Spans,
    Logs,
    Both,
}

/// Sets the signal of the process. Later calls have no effect.
pub(crate) fn install(signal: ExceptionSignal) {
    SIGNAL.get_or_init(|| signal);
}

fn signal() -> ExceptionSignal {
    SIGNAL.get().copied().unwrap_or_default()
}

/// An operation that can fail, which determines the event name and the level of its exceptions in log records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// An HTTP request to another service.
    HttpClientRequest,
    /// An HTTP request to this service.
    HttpServerRequest,
    /// A gRPC call to another service.
    RpcClientCall,
    /// A call to a database.
    DbClientOperation,
    /// A message being sent.
    MessagingSend,
    /// A message being processed.
    MessagingProcess,
    /// Any other operation.
    Other,
}

/// Whether exceptions in `cx` are recorded.
pub(crate) fn are_recorded(cx: &Context) -> bool {
    cx.span().is_recording() || are_logged(cx)
}

/// Whether exceptions in `cx` have log records, which unlike events do not depend on sampling.
fn are_logged(cx: &Context) -> bool {
    signal() != ExceptionSignal::Spans && recorder::is_installed() && !is_untraced(cx)
}

/// Marks the span of `cx`, which stands for `operation`, as failed: `error.type` and the status Error. Records the exception
/// as a span event or as a log record.
pub fn record_exception(cx: &Context, operation: Operation, error_type: Cow<'static, str>, message: String) {
    let span = cx.span();
    // The panic hook has logged the panic.
    if are_logged(cx) && error_type != PANIC {
        let _attached = cx.clone().attach();
        log(operation, &error_type, &message);
    }
    if !span.is_recording() {
        return;
    }
    span.set_attribute(KeyValue::new("error.type", error_type.clone()));
    if signal() != ExceptionSignal::Logs {
        span.add_event(
            "exception",
            vec![
                KeyValue::new("exception.type", error_type),
                KeyValue::new("exception.message", message.clone()),
            ],
        );
    }
    span.set_status(Status::error(message));
}

/// Logs an exception of the current span. The conventions use WARN for exceptions that the caller can handle.
fn log(operation: Operation, error_type: &str, message: &str) {
    macro_rules! event {
        ($name:literal, $level:ident, $text:literal) => {
            tracing::event!(
                name: $name,
                tracing::Level::$level,
                exception.type = error_type,
                exception.message = message,
                $text
            )
        };
    }
    match operation {
        Operation::HttpClientRequest => event!("http.client.request.exception", WARN, "HTTP call failed"),
        Operation::HttpServerRequest => event!("http.server.request.exception", ERROR, "HTTP request failed"),
        Operation::RpcClientCall => event!("rpc.client.call.exception", WARN, "RPC failed"),
        Operation::DbClientOperation => event!("db.client.operation.exception", WARN, "database call failed"),
        Operation::MessagingSend => event!("messaging.send.exception", WARN, "message not sent"),
        Operation::MessagingProcess => {
            event!("messaging.process.exception", ERROR, "message not processed");
        }
        Operation::Other => event!("exception", WARN, "operation failed"),
    }
}
