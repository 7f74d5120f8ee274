//! Masking of addresses in all strings of spans and metrics.

use std::time::Duration;

use otel_service::opentelemetry::trace::{
    Event, Link, Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _,
};
use otel_service::opentelemetry::{Array, InstrumentationScope, StringValue, Value, global};
use otel_service::{Context, HttpLayer, KeyValue};
use tower::{Layer, ServiceExt};

use crate::support::{self, Behaviour, Collector, Received, number, run_prepared, shown};

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

/// Texts that contain `SECRET`, which must never leave the process.
const FORMS: [&str; 8] = [
    "carla.SECRET@mail-house.example",
    "carla.SECRET%40mail-house.example",
    "\"carla SECRET\"@mail-house.example",
    "<carla.SECRET@[192.0.2.1]>",
    "carla{SECRET}@mail-house.example",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYXJsYSJ9SECRET.c2ln",
    "Bearer SECRETmF_9.B5f-4.1JqM",
    "whsec_SECRETMfKQ9r8GKYqrTwjU",
];

/// Puts each of the forms into every place that takes text.
fn everywhere() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    for (index, form) in FORMS.into_iter().enumerate() {
        let text = |place: &str| format!("{place} {form}");
        let attributes = |place| vec![KeyValue::new(text(place), text(place))];
        let scope = InstrumentationScope::builder(text("scope"))
            .with_version(text("version"))
            .with_attributes(attributes("scope"));
        let tracer = global::tracer_with_scope(scope.build());
        let list: Vec<StringValue> = vec![text("list").into()];
        let builder = SpanBuilder::from_name(text("name"))
            .with_attributes(attributes("attribute"))
            .with_links(vec![Link::new(elsewhere("dave"), attributes("link"), 0)]);
        let mut span = tracer.build(builder);
        span.set_attribute(KeyValue::new("list", Value::Array(Array::String(list))));
        span.add_event(text("event"), attributes("event"));
        span.set_status(Status::error(text("status")));
        span.end();

        // A constant of the program is masked as well.
        support::block_on(otel_service::Span::internal(form).run(async {
            otel_service::set_attribute(KeyValue::new(form, form));
            Ok::<_, support::Problem>(())
        }))
        .unwrap();

        tracing::warn!(field = text("field"), debug = ?text("debug"), "{}", text("message"));

        let meter = otel_service::meter();
        let counter = meter
            .u64_counter(format!("counter.{index}"))
            .with_description(text("description"))
            .build();
        counter.add(1, &attributes("point"));

        let uri = format!(
            "/orders?note={}&x=1",
            form.replace(['"', ' ', '<', '>', '{', '}'], "+")
        );
        let request = http::Request::builder().uri(uri).header("user-agent", form);
        let service = tower::service_fn(|_: http::Request<()>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        });
        let layer = HttpLayer::new(|_| None);
        support::block_on(support::read(
            layer.layer(service).oneshot(request.body(()).unwrap()),
        ));
    }
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

/// Like [`support::run`], for names that the telemetry registry does not have.
fn run_undeclared(
    name: &str,
    environment: &[(&str, &str)],
    scenario: impl FnOnce(),
) -> Option<(Received, String)> {
    let prepare = || {
        let collector = Collector::start(Behaviour::Accepts);
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url());
        let others = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        (collector, [endpoint].into_iter().chain(others).collect())
    };
    let (collector, stdout) = run_prepared(name, prepare, scenario)?;
    Some((collector.take_unchecked(), stdout))
}

#[test]
fn no_address_or_token_leaves_the_process() {
    let name = "masked::no_address_or_token_leaves_the_process";
    let environment = [(
        "OTEL_RESOURCE_ATTRIBUTES",
        "owner=carla.SECRET%40mail-house.example,carla.SECRET%40mail-house.example=1",
    )];
    let Some((received, stdout)) = run_undeclared(name, &environment, everywhere) else {
        return;
    };
    assert!(received.spans.len() >= 2 * FORMS.len() && received.logs.len() >= FORMS.len());
    for index in 0..FORMS.len() {
        received.metric(&format!("counter.{index}"));
    }
    let all = format!("{received:?}");
    let place = all.find("SECRET").map(|at| &all[at.saturating_sub(200)..at]);
    assert_eq!(place, None);
    assert!(!stdout.contains("SECRET"), "{stdout}");
}

#[test]
fn points_that_differ_only_in_masked_text_are_merged() {
    let name = "masked::points_that_differ_only_in_masked_text_are_merged";
    let scenario = || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        let meter = otel_service::meter();
        let counter = meter.u64_counter("merged.counter").build();
        let up_down = meter.i64_up_down_counter("merged.up_down").build();
        #[expect(
            clippy::disallowed_methods,
            reason = "histograms of the meter are merged as well"
        )]
        let histogram = meter.f64_histogram("merged.histogram").build();
        let gauge = meter.f64_gauge("merged.gauge").build();
        for (index, who) in ["alina@x.example", "albert@x.example", "alan@x.example"]
            .iter()
            .enumerate()
        {
            let attributes = [KeyValue::new("who", *who)];
            counter.add(1, &attributes);
            up_down.add(-2, &attributes);
            histogram.record(0.5, &attributes);
            gauge.record(index as f64, &attributes);
        }
        counter.add(5, &[KeyValue::new("who", "bob@x.example")]);
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    };
    let Some((received, _)) = run_undeclared(name, &[], scenario) else {
        return;
    };
    let mut counted: Vec<_> = received.numbers("merged.counter");
    counted.sort_by_key(|point| number(point) as i64);
    let counted: Vec<_> = counted
        .iter()
        .map(|point| (shown(&point.attributes), number(point)))
        .collect();
    let masked = vec!["who=\"al***@x.example\"".to_owned()];
    let other = vec!["who=\"bo***@x.example\"".to_owned()];
    assert_eq!(counted, [(masked, 3.0), (other, 5.0)]);
    let numbers = |name| received.numbers(name).iter().map(number).collect::<Vec<_>>();
    assert_eq!(numbers("merged.up_down"), [-6.0]);
    assert_eq!(numbers("merged.gauge").len(), 1);
    let [point] = &received.histogram("merged.histogram")[..] else {
        panic!("more than one point");
    };
    assert_eq!((point.count, point.sum), (3, Some(1.5)));
}
