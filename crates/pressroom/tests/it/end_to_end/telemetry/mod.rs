//! Checks the telemetry contract on OTLP data from real processes: all documented spans, metrics and logs,
//! with the types of their attributes.

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

/// Expected value of an attribute.
#[derive(Debug, Clone, Copy)]
enum Is<'a> {
    Text(&'a str),
    Integer(i64),
    /// Any string that is not empty.
    AnyText,
    AnyInteger,
    Absent,
}

/// Asserts that each expected attribute has the expected type and value, and that no attribute is repeated.
fn assert_attributes(of: &str, attributes: &[KeyValue], expected: &[(&str, Is<'_>)]) {
    for (index, attribute) in attributes.iter().enumerate() {
        let earlier = &attributes[..index];
        assert!(
            earlier.iter().all(|other| other.key != attribute.key),
            "{of}: {} is repeated",
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
        assert!(holds, "{of}: {key} is {found:?}, expected {is:?}");
    }
}

/// A span exported by a process of an installation.
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

    /// Asserts that the span is a child of `parent`.
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

    /// Asserts that the span has no error: its status is unset and it has no exception.
    fn assert_unset(&self) {
        assert_eq!(self.status(), StatusCode::Unset, "{}", self.span.name);
        assert!(self.span.events.is_empty(), "{:?}", self.span.events);
        assert_attributes(
            &self.span.name,
            &self.span.attributes,
            &[("error.type", Is::Absent)],
        );
    }

    /// Asserts that the span has status Error, this `error.type`, and an exception with a message.
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

/// Waits for a span that matches and returns the first one.
async fn span(installation: &Installation, what: &str, matches: impl Fn(&Seen) -> bool) -> Seen {
    eventually(what, async || {
        let spans = installation.otlp.spans().into_iter();
        spans
            .map(|(service, span)| Seen { service, span })
            .find(|span| matches(span))
    })
    .await
}

/// Waits for a span named `name` in a trace and returns the first one.
async fn span_of(installation: &Installation, trace: &str, name: &str) -> Seen {
    span(installation, name, |seen| {
        seen.span.name == name && seen.trace() == trace
    })
    .await
}

/// Returns a trace id for a number.
fn trace_id(number: u32) -> String {
    format!("{number:08x}16cd43dd8448eb211c80319c")
}

/// Sends a request in the trace `trace`, with additional header fields.
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

/// Returns the value of `Authorization` for a token.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
