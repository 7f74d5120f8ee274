//! Masking of addresses in all strings of spans and metrics.

use std::time::Duration;

use otel_service::opentelemetry::trace::{
    Event, Link, Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _,
};
use otel_service::opentelemetry::{Array, StringValue, Value, global};
use otel_service::{Context, KeyValue};

use crate::support::{self, Behaviour, shown};

fn person(name: &str) -> String {
    format!("{name}@example.com")
}

/// Returns a remote span context with an address in its trace state.
fn elsewhere(name: &str) -> SpanContext {
    let state = TraceState::from_key_value([("vendor", person(name))]).unwrap();
    SpanContext::new(
        TraceId::from(0xabc),
        SpanId::from(0xdef),
        TraceFlags::SAMPLED,
        true,
        state,
    )
}

fn scenario() {
    static MAILS: otel_service::Counter = otel_service::counter("mails", "{mail}", "Mails.");
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let email = |name| KeyValue::new("user.email", person(name));
    let roles: Vec<StringValue> = vec!["reader".into(), person("bob").into()];
    let builder = SpanBuilder::from_name(format!("work for {}", person("alice")))
        .with_attributes([
            email("alice"),
            KeyValue::new("user.roles", Value::Array(Array::String(roles))),
        ])
        .with_events(vec![Event::new(
            "exception",
            std::time::SystemTime::now(),
            vec![KeyValue::new(
                "exception.message",
                format!("no {}", person("carol")),
            )],
            0,
        )])
        .with_links(vec![Link::new(elsewhere("dave"), vec![email("erin")], 0)]);
    let parent = Context::new().with_remote_span_context(elsewhere("frank"));
    let mut span = global::tracer("test").build_with_context(builder, &parent);
    span.set_status(Status::error(format!("lost {}", person("grace"))));
    span.end();
    MAILS.add(1, &[email("heidi")]);
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn addresses_in_all_strings_of_spans_and_metrics_are_masked() {
    let name = "masked::addresses_in_all_strings_of_spans_and_metrics_are_masked";
    let Some(run) = support::run(name, Behaviour::Accepts, &[], scenario) else {
        return;
    };
    let span = run.received.span("work for al***@example.com");
    assert_eq!(span.trace_state, "vendor=fr***@example.com");
    assert_eq!(span.status.as_ref().unwrap().message, "lost gr***@example.com");
    let attributes = format!("{:?}", span.attributes);
    for masked in ["al***@example.com", "bo***@example.com"] {
        assert!(attributes.contains(masked), "{attributes}");
    }
    assert_eq!(
        shown(&span.events[0].attributes),
        ["exception.message=\"no ca***@example.com\""]
    );
    assert_eq!(span.links[0].trace_state, "vendor=da***@example.com");
    assert_eq!(
        shown(&span.links[0].attributes),
        ["user.email=\"er***@example.com\""]
    );
    let points = run.received.numbers("mails");
    assert_eq!(shown(&points[0].attributes), ["user.email=\"he***@example.com\""]);
    let all = format!("{:?}", run.received);
    for name in ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"] {
        assert!(!all.contains(&person(name)), "{name}");
    }
}
