//! Failures and their recording on spans. An expected error, such as a wrong password, is an `Err` but not a
//! failure: it leaves the span status unset.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use crate::exceptions::{Operation, PANIC, are_recorded, record_exception};

/// `error.type` of work that was dropped before it ended.
pub(crate) const CANCELLED: &str = "cancelled";

/// An error that can be recorded on a span.
pub trait Failure {
    /// Returns the value of `error.type`, such as `io.timeout` or the name of the type, or `None` for an
    /// expected error.
    ///
    /// The number of values must be small.
    fn error_type(&self) -> Option<Cow<'static, str>>;

    /// Returns the message of the error, which must not contain secrets. E-mail addresses are masked.
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

/// Cause of a 5xx response, set as an extension of the response. [`crate::HttpLayer`] records it as the
/// exception of the server span.
#[derive(Clone, Debug)]
pub struct ServerError {
    /// Value of `error.type` and `exception.type`.
    pub error_type: Cow<'static, str>,
    /// Value of `exception.message`.
    pub message: String,
}

/// Marks the current span as failed with `error`, of any type.
///
/// `error.type` is the name of the Rust type; the message is `{error:#}`, which includes the causes of an
/// `anyhow::Error`, and must not contain secrets. Does nothing outside of a recorded span.
///
/// ```
/// fn parse(text: &str) -> Option<u32> {
///     text.parse().inspect_err(otel_service::record_error).ok()
/// }
/// ```
pub fn record_error<E: Display + ?Sized>(error: &E) {
    Context::map_current(|cx| record_error_of(cx, error));
}

/// Marks the span of `cx` as failed with `error`.
pub(crate) fn record_error_of<E: Display + ?Sized>(cx: &Context, error: &E) {
    if are_recorded(cx) {
        let error_type = std::any::type_name::<E>().into();
        record_exception(cx, Operation::Other, error_type, format!("{error:#}"));
    }
}

/// Records `failure` on the span of `cx`, which stands for `operation`, unless it is an expected error; returns its
/// `error.type`.
pub fn record_failure(
    cx: &Context,
    operation: Operation,
    failure: &dyn Failure,
) -> Option<Cow<'static, str>> {
    let error_type = failure.error_type()?;
    record_exception(cx, operation, error_type.clone(), failure.message());
    Some(error_type)
}

/// Records on the span of `cx` that its work was dropped before it ended: as a failure during a panic, as a
/// cancellation otherwise. Returns the `error.type`.
pub fn record_unfinished(cx: &Context) -> Cow<'static, str> {
    if std::thread::panicking() {
        record_exception(cx, Operation::Other, PANIC.into(), "the work panicked".to_owned());
        PANIC.into()
    } else {
        cx.span().set_attribute(KeyValue::new("error.type", CANCELLED));
        CANCELLED.into()
    }
}
