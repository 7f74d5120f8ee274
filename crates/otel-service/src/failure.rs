//! What counts as a failure, and how one is written on a span. A refusal that the service expects (a wrong password, a
//! missing article) is an `Err` too, but not a failure: it leaves the span's status unset.

use std::borrow::Cow;
use std::convert::Infallible;

use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

/// `error.type` of work that nobody waited for any longer.
pub(crate) const CANCELLED: &str = "cancelled";

/// `error.type` of work that panicked.
pub(crate) const PANIC: &str = "panic";

/// An error as telemetry sees it.
pub trait Failure {
    /// The value of `error.type`: low cardinality, as `io.timeout` or the type's name. `None` says that this is an
    /// expected refusal and not an error.
    fn error_type(&self) -> Option<Cow<'static, str>>;

    /// What happened, for people. E-mails are masked on the way out; secrets must not be in it.
    fn message(&self) -> String;
}

impl Failure for Infallible {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        match *self {}
    }

    fn message(&self) -> String {
        match *self {}
    }
}

/// Why a response is a 5xx. Put it into the response's extensions and [`crate::HttpLayer`] records it as the exception
/// of the server span.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The value of `error.type` and `exception.type`.
    pub error_type: Cow<'static, str>,
    /// The value of `exception.message`.
    pub message: String,
}

impl Failure for Fault {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        Some(self.error_type.clone())
    }

    fn message(&self) -> String {
        self.message.clone()
    }
}

/// Marks the span of `cx` as failed: `error.type`, an `exception` event and the status Error.
pub(crate) fn record(cx: &Context, error_type: Cow<'static, str>, message: String) {
    let span = cx.span();
    if !span.is_recording() {
        return;
    }
    span.set_attribute(KeyValue::new("error.type", error_type.clone()));
    span.add_event(
        "exception",
        vec![
            KeyValue::new("exception.type", error_type),
            KeyValue::new("exception.message", message.clone()),
        ],
    );
    span.set_status(Status::error(message));
}

/// Records `failure` on the span of `cx` unless it is an expected refusal; gives its `error.type`.
pub(crate) fn record_failure(cx: &Context, failure: &dyn Failure) -> Option<Cow<'static, str>> {
    let error_type = failure.error_type()?;
    record(cx, error_type.clone(), failure.message());
    Some(error_type)
}

/// Writes on the span of `cx` that its work was given up half-way, which is no failure unless it panicked; gives its
/// `error.type`.
pub(crate) fn record_unfinished(cx: &Context) -> Cow<'static, str> {
    if std::thread::panicking() {
        record(cx, PANIC.into(), "the work panicked".to_owned());
        PANIC.into()
    } else {
        cx.span().set_attribute(KeyValue::new("error.type", CANCELLED));
        CANCELLED.into()
    }
}
