//! The telemetry contract, asserted on decoded OTLP from real processes: every row of its tables of
//! spans, metrics and logs, with types.

mod failures;
mod logs;
mod masking;
mod metrics;
mod spans;

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use std::net::SocketAddr;

use super::installation::Installation;
use crate::support::{
    eventually,
    otlp::{hex, value},
    raw,
};

const APP: &str = "pressroom-app";
const WORKER: &str = "pressroom-worker";
const TASK: &str = "app.jobs.tasks.send_article_notification";

/// What an attribute must be.
#[derive(Debug, Clone, Copy)]
enum Is<'a> {
    Text(&'a str),
    Integer(i64),
    /// A text with something in it.
    AnyText,
    AnyInteger,
    Absent,
}

/// Panics unless each attribute is there, once, with its type and value.
fn assert_attributes(of: &str, attributes: &[KeyValue], expected: &[(&str, Is<'_>)]) {
    for (index, attribute) in attributes.iter().enumerate() {
        let earlier = &attributes[..index];
        assert!(
            earlier.iter().all(|other| other.key != attribute.key),
            "{of}: {} is there twice",
            attribute.key
        );
    }
    for (key, is) in expected {
        let found = value(attributes, key);
        let holds = match (is, &found) {
            (Is::Text(text), Some(Value::StringValue(found))) => text == found,
            (Is::Integer(number), Some(Value::IntValue(found))) => number == found,
            (Is::AnyText, Some(Value::StringValue(found))) => !found.is_empty(),
            (Is::AnyInteger, Some(Value::IntValue(_))) | (Is::Absent, None) => true,
            _ => false,
        };
        assert!(holds, "{of}: {key} is {found:?}, not {is:?}");
    }
}

/// A span that an installation's process has sent.
struct Seen {
    service: String,
    span: Span,
}

impl Seen {
    fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    fn assert(&self, service: &str, kind: SpanKind, expected: &[(&str, Is<'_>)]) -> &Self {
        assert_eq!(self.service, service, "{}", self.span.name);
        assert_eq!(self.span.kind(), kind, "{}", self.span.name);
        assert_attributes(&self.span.name, &self.span.attributes, expected);
        self
    }

    /// Panics unless the span's parent is `parent`, in the same trace.
    fn assert_below(&self, parent: &Seen) -> &Self {
        assert_eq!(self.trace(), parent.trace(), "{}", self.span.name);
        assert_eq!(
            hex(&self.span.parent_span_id),
            parent.id(),
            "the parent of {}",
            self.span.name
        );
        self
    }

    /// Nothing failed: the status is unset and no exception is recorded.
    fn assert_unset(&self) {
        assert_eq!(self.status(), StatusCode::Unset, "{}", self.span.name);
        assert!(self.span.events.is_empty(), "{:?}", self.span.events);
        assert_attributes(
            &self.span.name,
            &self.span.attributes,
            &[("error.type", Is::Absent)],
        );
    }

    /// It failed: status Error, `error.type`, and the exception with its message.
    fn assert_error(&self, error_type: &str) {
        let name = &self.span.name;
        assert_eq!(self.status(), StatusCode::Error, "{name}");
        assert_attributes(
            name,
            &self.span.attributes,
            &[("error.type", Is::Text(error_type))],
        );
        let exceptions: Vec<_> = self
            .span
            .events
            .iter()
            .filter(|event| event.name == "exception")
            .collect();
        assert_eq!(exceptions.len(), 1, "{name}: {:?}", self.span.events);
        assert_attributes(
            name,
            &exceptions[0].attributes,
            &[
                ("exception.type", Is::Text(error_type)),
                ("exception.message", Is::AnyText),
            ],
        );
    }

    fn status(&self) -> StatusCode {
        self.span.status.clone().unwrap_or_default().code()
    }
}

/// Waits for the first span that `holds`.
async fn span(installation: &Installation, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
    eventually(what, async || {
        let spans = installation.otlp.spans().into_iter();
        spans
            .map(|(service, span)| Seen { service, span })
            .find(|seen| holds(seen))
    })
    .await
}

/// Waits for the first span of this name in a trace.
async fn span_of(installation: &Installation, trace: &str, name: &str) -> Seen {
    span(installation, name, |seen| {
        seen.span.name == name && seen.trace() == trace
    })
    .await
}

/// A trace id that this number makes.
fn trace_id(number: u32) -> String {
    format!("{number:08x}16cd43dd8448eb211c80319c")
}

/// Sends a request below a caller's span of the trace `trace`, with further headers.
async fn request(
    api: SocketAddr,
    trace: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: Option<&serde_json::Value>,
) -> raw::Response {
    let mut text = format!(
        "{line} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nUser-Agent: contract-test/1.0\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-01\r\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.map(serde_json::Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    raw::send(api, format!("{text}\r\n{body}").as_bytes()).await
}

/// The header that says who asks.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
