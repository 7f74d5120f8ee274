//! The encoder is compared with the upstream conversion of the same spans.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks, SpanProcessor};
use prost::Message;

use super::*;
use crate::encode::{Batch, RequestEncoder, Scopes};
use crate::processors::QueueSpanProcessor;
use crate::queue::Queue;
use crate::text::tests::redact_mail;

fn context(id: u64, flags: TraceFlags) -> SpanContext {
    let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
    SpanContext::new(TraceId::from(7), SpanId::from(id), flags, true, state)
}

fn span(id: u64, scope: &'static str, status: Status) -> SpanData {
    let attributes = || {
        vec![
            KeyValue::new("text", "moved".to_owned()),
            KeyValue::new("static", "copied"),
            KeyValue::new("number", 7),
            KeyValue::new("fraction", 0.5),
            KeyValue::new("truth", true),
            KeyValue::new("falsehood", false),
            KeyValue::new("zero", 0),
            KeyValue::new("below", -1),
            KeyValue::new("empty", ""),
            KeyValue::new("long", "x".repeat(200)),
            KeyValue::new("texts", Value::Array(vec![StringValue::from("a")].into())),
            KeyValue::new("numbers", Value::Array(vec![1_i64, 0, -2].into())),
            KeyValue::new("fractions", Value::Array(vec![0.0, -1.5].into())),
            KeyValue::new("truths", Value::Array(vec![true, false].into())),
        ]
    };
    let time = UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    let mut events = SpanEvents::default();
    events.events.push(Event::new("happened", time, attributes(), 3));
    events.dropped_count = 4;
    let mut links = SpanLinks::default();
    links
        .links
        .push(Link::new(context(9, TraceFlags::SAMPLED), attributes(), 5));
    links.dropped_count = 6;
    SpanData {
        span_context: context(id, TraceFlags::SAMPLED),
        parent_span_id: SpanId::from(id - 1),
        parent_span_is_remote: id == 2,
        span_kind: SpanKind::Producer,
        name: Cow::Borrowed("work"),
        start_time: time,
        end_time: time + Duration::from_millis(5),
        attributes: attributes(),
        dropped_attributes_count: 2,
        events,
        links,
        status,
        instrumentation_scope: InstrumentationScope::builder(scope)
            .with_version("1")
            .with_schema_url("https://example.com/schema")
            .build(),
    }
}

const PLAIN: TextRules = TextRules {
    redact: None,
    value_limit: None,
};

fn decoded(rules: TextRules, batch: Vec<SpanData>) -> ExportTraceServiceRequest {
    let resource = Resource::builder_empty()
        .with_schema_url(
            [KeyValue::new("service.name", "test")],
            "https://example.com/resource",
        )
        .build();
    let queue = Arc::new(Queue::<Batch>::new(100, 100));
    let processor = QueueSpanProcessor {
        counts: Arc::default(),
        queue: Arc::clone(&queue),
        rules,
    };
    batch.into_iter().for_each(|span| processor.on_end(span));
    let encoder = RequestEncoder::new(&resource, rules, Arc::new(Scopes::default()));
    let request = encoder.encode(&queue.take().unwrap());
    ExportTraceServiceRequest::decode(request).unwrap()
}

fn only(rules: TextRules, span: SpanData) -> Span {
    let mut request = decoded(rules, vec![span]);
    request.resource_spans[0].scope_spans[0].spans.remove(0)
}

#[test]
fn a_request_equals_the_upstream_conversion() {
    let batch = vec![
        span(1, "a", Status::Unset),
        span(2, "b", Status::Ok),
        span(3, "a", Status::error("it failed")),
    ];
    let resource = Resource::builder_empty()
        .with_schema_url(
            [KeyValue::new("service.name", "test")],
            "https://example.com/resource",
        )
        .build();
    let mut expected =
        group_spans_by_resource_and_scope(batch.clone(), &ResourceAttributesWithSchema::from(&resource));
    expected[0]
        .scope_spans
        .sort_by_key(|scope| scope.scope.as_ref().map(|scope| scope.name.clone()));
    assert_eq!(decoded(PLAIN, batch).resource_spans, expected);
}

#[test]
fn the_last_value_of_a_key_is_kept() {
    let mut twice = span(1, "a", Status::Unset);
    twice.attributes = vec![
        KeyValue::new("user.id", 1),
        KeyValue::new("a", "x"),
        KeyValue::new("user.id", 2),
    ];
    let mut once = twice.clone();
    once.attributes.remove(0);
    assert_eq!(only(PLAIN, twice), only(PLAIN, once));
}

#[test]
fn every_string_of_a_span_is_redacted() {
    let mail = "alice@example.com";
    let state = || TraceState::from_key_value([("tenant", "alice@example.com")]).unwrap();
    let of = |id: u64| {
        SpanContext::new(
            TraceId::from(7),
            SpanId::from(id),
            TraceFlags::SAMPLED,
            true,
            state(),
        )
    };
    let mut span = span(1, "a", Status::error(mail));
    let attributes = || {
        vec![
            KeyValue::new("mail", mail),
            KeyValue::new("mails", Value::Array(vec![StringValue::from(mail)].into())),
        ]
    };
    span.span_context = of(1);
    span.name = Cow::Borrowed(mail);
    span.attributes = attributes();
    span.events.events = vec![Event::new(mail, UNIX_EPOCH, attributes(), 0)];
    span.links.links = vec![Link::new(of(2), attributes(), 0)];
    let count = |rules, text: &str| format!("{:?}", only(rules, span.clone())).matches(text).count();
    assert_eq!(count(PLAIN, mail), 11);
    let masking = TextRules {
        redact: Some(redact_mail),
        ..PLAIN
    };
    assert_eq!(count(masking, mail), 0);
    assert_eq!(count(masking, "al***@example.com"), 11);
}

#[test]
fn attributes_are_redacted_and_then_truncated_but_names_are_not_truncated() {
    let rules = TextRules {
        redact: Some(redact_mail),
        value_limit: Some(9),
    };
    let mut long = span(1, "a", Status::error("a long description"));
    long.attributes = vec![
        KeyValue::new("mail", "alice@example.com"),
        KeyValue::new("short", "ünïcödé"),
        KeyValue::new("number", 1_234_567_890_123),
        KeyValue::new(
            "texts",
            Value::Array(vec![StringValue::from("0123456789")].into()),
        ),
    ];
    long.events.events.clear();
    long.links.links.clear();
    let mut cut = long.clone();
    cut.attributes[0] = KeyValue::new("mail", "al***@exa");
    cut.attributes[3] = KeyValue::new("texts", Value::Array(vec![StringValue::from("012345678")].into()));
    assert_eq!(only(rules, long), only(PLAIN, cut));
}

#[test]
fn spans_that_are_not_sampled_are_not_queued() {
    let queue = Arc::new(Queue::<Batch>::new(10, 5));
    let processor = QueueSpanProcessor {
        counts: Arc::default(),
        queue: Arc::clone(&queue),
        rules: PLAIN,
    };
    let mut unsampled = span(1, "a", Status::Unset);
    unsampled.span_context = context(1, TraceFlags::default());
    processor.on_end(unsampled);
    assert_eq!(queue.len(), 0);
    processor.on_end(span(2, "a", Status::Unset));
    assert_eq!(queue.len(), 1);
    processor.shutdown().unwrap();
    processor.on_end(span(3, "a", Status::Unset));
    assert_eq!(queue.len(), 1);
}
