//! One request and its response, from the arrival of the request until the response is sent, fails, or is
//! dropped. [`Exchange`] is a drop guard: in each case the span ends once and the metrics are recorded once.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue, Response};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};
use otlp_recorder::{Attributes, SpanStart};

use super::attributes;
use super::measures::Measured;
use super::routes::Route;
use crate::context;
use crate::exceptions::{Operation, PANIC, record_exception};
use crate::failure::{CANCELLED, ServerError};
use crate::http_settings::settings;
use crate::panic_message;
use crate::recorder::{self, OWN};
use crate::untraced::{disabled_context, untraced_context};

static TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A request in progress.
#[derive(Debug)]
pub(super) struct Exchange {
    cx: Context,
    /// `None` once the exchange has ended.
    measured: Option<Measured>,
    /// Span that carries the context; disabled by default.
    context_span: tracing::Span,
}

impl Exchange {
    pub(super) fn start(
        parts: &Parts,
        peer: Option<SocketAddr>,
        route: Option<StringValue>,
        known: Option<&'static Route>,
        parent: &Context,
        is_untraced: bool,
    ) -> Self {
        let cx = if !recorder::is_installed() {
            disabled_context(parent)
        } else if is_untraced {
            untraced_context(parent)
        } else {
            server_span(
                parts,
                peer,
                route.as_ref().map(StringValue::as_str),
                known,
                parent,
            )
        };
        Self {
            measured: Some(Measured::start(parts, route, cx.span().span_context())),
            cx,
            context_span: tracing::Span::none(),
        }
    }

    /// Enables the `tracing` span that carries the context.
    pub(super) fn carry_context(&mut self) {
        self.context_span = context::serving(&self.cx, context::context_span);
    }

    /// Runs one poll of the request's work with its span as the current span. Records a panic and resumes it.
    pub(super) fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match catch_unwind(AssertUnwindSafe(|| {
            context::serving(&self.cx, || self.context_span.in_scope(work))
        })) {
            Ok(done) => done,
            Err(panic) => {
                self.failed(PANIC, panic_message(panic.as_ref()).into_owned());
                resume_unwind(panic)
            }
        }
    }

    /// Records the head of the response and adds the `traceresponse` header; the body may follow much later.
    /// Returns whether the response is sent without a body, even if the service provides one.
    pub(super) fn responded<B>(&mut self, response: &mut Response<B>) -> bool {
        let status = response.status();
        let fault = response.extensions().get::<ServerError>();
        let span = self.cx.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status.as_u16()),
        ));
        if status.is_server_error() {
            match fault {
                Some(fault) => {
                    let (error_type, message) = (fault.error_type.clone(), fault.message.clone());
                    record_exception(&self.cx, Operation::HttpServerRequest, error_type, message);
                }
                None => {
                    span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                    // No cause is known, and the status code is already an attribute.
                    span.set_status(Status::error(""));
                }
            }
        }
        let is_bodiless = match &mut self.measured {
            Some(measured) => measured.responded(status, fault),
            None => false,
        };
        if recorder::is_installed()
            && let Some(value) = traceresponse(&self.cx)
        {
            response.headers_mut().insert(TRACERESPONSE.clone(), value);
        }
        if span.is_recording() {
            let captured = settings().server.of_response(response.headers());
            captured.for_each(|header| span.set_attribute(header));
        }
        is_bodiless
    }

    /// Records that the service failed before its response was complete, and ends the exchange.
    pub(super) fn failed(&mut self, error_type: &'static str, message: String) {
        if let Some(measured) = &mut self.measured {
            // Later failures are consequences of the first one, which is recorded.
            if measured.failed(error_type) {
                record_exception(&self.cx, Operation::HttpServerRequest, error_type.into(), message);
            }
            self.end();
        }
    }

    /// Ends the span and records the metrics.
    pub(super) fn end(&mut self) {
        if let Some(measured) = self.measured.take() {
            measured.record();
            // Ended explicitly, because tasks spawned by the request may keep its context alive.
            self.cx.span().end();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(measured) = &mut self.measured else {
            return;
        };
        if std::thread::panicking() {
            self.failed(PANIC, "the task that served the request panicked".to_owned());
        } else {
            // A disconnected client is not a failure of the service.
            if measured.failed(CANCELLED) {
                self.cx
                    .span()
                    .set_attribute(KeyValue::new("error.type", CANCELLED));
            }
            self.end();
        }
    }
}

/// Starts the server span.
fn server_span(
    parts: &Parts,
    peer: Option<SocketAddr>,
    route: Option<&str>,
    known: Option<&'static Route>,
    parent: &Context,
) -> Context {
    let shared = known.and_then(|known| known.shared(parts));
    let name = match shared {
        Some(shared) => Cow::Borrowed(&*shared.name),
        None => attributes::span_name(&parts.method, route),
    };
    let start = SpanStart::new(name, SpanKind::Server);
    let cx = OWN.start(parent, start, |into| {
        let describe = |into: &mut Attributes| attributes::describe_route(parts, route, into);
        match shared {
            Some(shared) => shared.attributes.write(into, describe),
            None => describe(into),
        }
        attributes::describe(parts, peer, into);
    });
    if cx.span().span_context().is_valid() {
        cx
    } else {
        untraced_context(parent)
    }
}

/// Returns `00-<trace id>-<span id>-<flags>`, the value of the draft W3C response header.
fn traceresponse(cx: &Context) -> Option<HeaderValue> {
    let span = cx.span();
    let span_context = span.span_context();
    if !span_context.is_valid() {
        return None;
    }
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &span_context.trace_id().to_bytes());
    write_hex(&mut text[36..52], &span_context.span_id().to_bytes());
    write_hex(&mut text[53..], &[span_context.trace_flags().to_u8()]);
    HeaderValue::from_bytes(&text).ok()
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}
