//! Spans as the specification of tracing describes them, through the API of `opentelemetry`.
#![cfg(test)]

use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState,
};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_sdk::trace::Sampler;
use otlp_recorder::{InMemory, Pipeline, RecordedSpan, SpanStart, Tracer};

/// Records spans with `record`, and returns them.
fn recorded(sampler: Sampler, record: impl FnOnce(&Tracer)) -> Vec<Span> {
    let memory = InMemory::default();
    let pipeline = Pipeline::builder()
        .sampler(sampler)
        .spans(memory.exporter())
        .start();
    record(
        &pipeline
            .recorder()
            .tracer(InstrumentationScope::builder("test").build()),
    );
    pipeline.shutdown(Duration::from_secs(20)).unwrap();
    memory.spans()
}

fn start(tracer: &Tracer, parent: &Context, name: &'static str) -> RecordedSpan {
    tracer.start(parent, SpanStart::new(name, SpanKind::Internal), |_| {})
}

fn remote(id: u64, flags: TraceFlags) -> SpanContext {
    SpanContext::new(
        TraceId::from(7),
        SpanId::from(id),
        flags,
        true,
        TraceState::default(),
    )
}

#[test]
fn a_parent_comes_from_a_context_only() {
    let spans = recorded(Sampler::AlwaysOn, |tracer| {
        let root = start(tracer, &Context::new(), "root");
        assert!(root.span_context().is_valid() && !root.span_context().is_remote());
        let cx = Context::new().with_span(root);
        start(tracer, &cx, "child").end();
        let cx = Context::new().with_remote_span_context(remote(9, TraceFlags::SAMPLED));
        assert!(cx.span().span_context().is_remote());
        start(tracer, &cx, "of a remote parent").end();
        assert!(!SpanContext::empty_context().is_valid());
    });
    let span = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(span("root").parent_span_id, [0; 0]);
    assert_eq!(span("child").parent_span_id, span("root").span_id);
    assert_eq!(span("child").trace_id, span("root").trace_id);
    assert_eq!(span("of a remote parent").parent_span_id, 9_u64.to_be_bytes());
}

#[test]
fn a_span_has_the_given_times_and_ends_once() {
    let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let spans = recorded(Sampler::AlwaysOn, |tracer| {
        let given = SpanStart::new("given", SpanKind::Internal).time(Some(time(5)));
        let mut span = tracer.start(&Context::new(), given, |_| {});
        assert!(span.is_recording());
        span.add_event_with_timestamp("event", time(6), vec![]);
        span.end_with_timestamp(time(7));
        assert!(!span.is_recording());
        span.set_attribute(KeyValue::new("late", 1));
        span.update_name("late");
        span.end();
        start(tracer, &Context::new(), "now").end();
    });
    assert_eq!(spans.len(), 2);
    assert_eq!((&*spans[0].name, spans[0].attributes.len()), ("given", 0));
    assert_eq!(spans[0].start_time_unix_nano, 5_000_000_000);
    assert_eq!(spans[0].events[0].time_unix_nano, 6_000_000_000);
    assert_eq!(spans[0].end_time_unix_nano, 7_000_000_000);
    assert!(spans[1].start_time_unix_nano > spans[0].end_time_unix_nano);
    assert!(spans[1].end_time_unix_nano >= spans[1].start_time_unix_nano);
}

#[test]
fn ok_is_final_and_unset_replaces_nothing() {
    let error = || Status::error("failed");
    for (statuses, code, message) in [
        (vec![], StatusCode::Unset, ""),
        (vec![error()], StatusCode::Error, "failed"),
        (vec![error(), Status::Unset], StatusCode::Error, "failed"),
        (vec![error(), Status::Ok], StatusCode::Ok, ""),
        (vec![Status::Ok, error()], StatusCode::Ok, ""),
    ] {
        let spans = recorded(Sampler::AlwaysOn, |tracer| {
            let mut span = start(tracer, &Context::new(), "span");
            statuses.iter().for_each(|status| span.set_status(status.clone()));
        });
        let status = spans[0].status.clone().unwrap_or_default();
        assert_eq!((status.code(), &*status.message), (code, message), "{statuses:?}");
    }
}

#[test]
fn attributes_have_every_type_and_any_unicode_text() {
    let attributes = [
        KeyValue::new("text", "x"),
        KeyValue::new("schlüssel", "日本 🦀"),
        KeyValue::new("truth", true),
        KeyValue::new("double", 0.25),
        KeyValue::new("int", i64::MIN),
        KeyValue::new("array", Value::Array(Array::I64(vec![1, 2]))),
    ];
    let spans = recorded(Sampler::AlwaysOn, |tracer| {
        let mut span = start(tracer, &Context::new(), "span");
        attributes
            .iter()
            .for_each(|attribute| span.set_attribute(attribute.clone()));
    });
    let value = |index: usize| spans[0].attributes[index].value.clone().unwrap().value.unwrap();
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    assert_eq!(spans[0].attributes[1].key, "schlüssel");
    assert_eq!([value(0), value(1)], [text("x"), text("日本 🦀")]);
    assert_eq!(value(2), any_value::Value::BoolValue(true));
    assert_eq!(value(3), any_value::Value::DoubleValue(0.25));
    assert_eq!(value(4), any_value::Value::IntValue(i64::MIN));
    let any_value::Value::ArrayValue(array) = value(5) else {
        panic!("{:?}", value(5));
    };
    assert_eq!(array.values.len(), 2);
}

#[test]
fn events_and_links_keep_their_order() {
    let spans = recorded(Sampler::AlwaysOn, |tracer| {
        // One link is to a span that is not sampled.
        let links = [1, 2].map(|id| Link::new(remote(id, TraceFlags::default()), vec![], 0));
        let linked = SpanStart::new("span", SpanKind::Internal).links(&links);
        let mut span = tracer.start(&Context::new(), linked, |_| {});
        span.add_link(remote(3, TraceFlags::SAMPLED), vec![KeyValue::new("n", 3)]);
        span.add_event("first", vec![KeyValue::new("n", 1)]);
        span.add_event("second", vec![]);
    });
    let links = spans[0].links.iter().map(|link| link.span_id.clone());
    assert_eq!(
        links.collect::<Vec<_>>(),
        [1_u64, 2, 3].map(|id| id.to_be_bytes().to_vec())
    );
    assert_eq!(spans[0].links[2].attributes[0].key, "n");
    let events = spans[0].events.iter().map(|event| &*event.name);
    assert_eq!(events.collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(spans[0].events[0].attributes[0].key, "n");
}

#[test]
fn a_span_that_is_not_sampled_has_an_id_of_its_own() {
    let spans = recorded(Sampler::AlwaysOff, |tracer| {
        let parent = Context::new().with_remote_span_context(remote(1, TraceFlags::SAMPLED));
        let span = start(tracer, &parent, "dropped");
        assert_eq!(span.span_context().trace_id(), TraceId::from(7));
        assert_ne!(span.span_context().span_id(), SpanId::from(1));
        assert!(span.span_context().is_valid() && !span.span_context().is_sampled());
        assert!(!span.is_recording());
    });
    assert_eq!(spans, []);
}

#[test]
fn spans_of_concurrent_threads_all_arrive() {
    const THREADS: usize = 8;
    const SPANS: usize = 100;
    let spans = recorded(Sampler::AlwaysOn, |tracer| {
        let shared = Context::new().with_span(start(tracer, &Context::new(), "shared"));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..SPANS / 10 {
                        shared.span().add_event("event", vec![]);
                    }
                    (0..SPANS).for_each(|_| start(tracer, &shared, "own").end());
                });
            }
        });
    });
    let shared = spans.iter().find(|span| span.name == "shared").unwrap();
    assert_eq!(shared.events.len(), THREADS * SPANS / 10);
    let children = spans.iter().filter(|span| span.parent_span_id == shared.span_id);
    assert_eq!(children.count(), THREADS * SPANS);
}
