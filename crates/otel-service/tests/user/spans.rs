//! Spans of the service, of libraries and of the API.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Request, Response};
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use otel_service::instrumentation::{Instrumentation, SpanStart};
use otel_service::names;
use otel_service::testing::{self, InMemory};
use otel_service::{ClientAddress, Context, HttpLayer, KeyValue, Span, SpanKind, context_span};
use otlp_recorder::Signal;
use prost::Message as _;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{text, value};

/// Runs work in a trace of the telemetry of the process; returns its spans by name.
async fn spans_of(
    work: impl Future<Output = ()>,
) -> BTreeMap<String, opentelemetry_proto::tonic::trace::v1::Span> {
    let telemetry = testing::telemetry();
    let trace_id = telemetry.in_trace(work).await;
    let spans = telemetry.spans(&trace_id).into_iter();
    spans.map(|span| (span.name.clone(), span)).collect()
}

#[tokio::test]
async fn errors_of_any_type_are_recorded_without_a_wrapper() {
    let spans = spans_of(async {
        let fails = async { Err::<(), _>(anyhow::anyhow!("disk full").context("cannot save")) };
        let error = Span::internal("any").run_any(fails).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot save");
        let parsed = Span::internal("sync")
            .in_scope(|| "seven".parse::<u32>().inspect_err(otel_service::record_error));
        assert!(parsed.is_err());
        let works = async { Ok::<_, anyhow::Error>(7) };
        assert_eq!(Span::internal("fine").run_any(works).await.unwrap(), 7);
    })
    .await;
    for (name, error_type, message) in [
        ("any", "anyhow::Error", "cannot save: disk full"),
        (
            "sync",
            "core::num::error::ParseIntError",
            "invalid digit found in string",
        ),
    ] {
        let span = &spans[name];
        assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!(text(&span.attributes, "error.type"), error_type);
        assert_eq!(span.events[0].name, "exception");
        assert_eq!(text(&span.events[0].attributes, "exception.type"), error_type);
        assert_eq!(text(&span.events[0].attributes, "exception.message"), message);
    }
    let status = spans["fine"].status.clone().unwrap_or_default();
    assert_eq!(status.code(), StatusCode::Unset);
}

#[tokio::test]
async fn spans_of_every_kind_surround_code_that_is_not_asynchronous() {
    let kinds = [
        ("internal", SpanKind::Internal, Kind::Internal),
        ("server", SpanKind::Server, Kind::Server),
        ("client", SpanKind::Client, Kind::Client),
        ("producer", SpanKind::Producer, Kind::Producer),
        ("consumer", SpanKind::Consumer, Kind::Consumer),
    ];
    let spans = spans_of(async {
        for (name, kind, _) in kinds.clone() {
            // The name need not be a constant.
            Span::new(format!("of kind {name}"), kind).in_scope(|| {
                Span::internal(format!("in {name}"))
                    .in_scope(|| otel_service::set_attribute(KeyValue::new("n", 1)));
            });
        }
        let panics = || Span::internal("panics").in_scope(|| panic!("of the test"));
        assert!(std::panic::catch_unwind(panics).is_err());
        Span::internal("old").in_scope(|| otel_service::rename_span("new"));
    })
    .await;
    for (name, _, kind) in kinds {
        let outer = &spans[&format!("of kind {name}")];
        assert_eq!(outer.kind(), kind);
        let inner = &spans[&format!("in {name}")];
        assert_eq!(inner.parent_span_id, outer.span_id);
        assert_eq!(value(&inner.attributes, "n"), Some(Value::IntValue(1)));
    }
    assert_eq!(text(&spans["panics"].attributes, "error.type"), "panic");
    assert!(spans.contains_key("new") && !spans.contains_key("old"));
}

#[tokio::test]
async fn tasks_and_threads_stay_in_the_trace() {
    let telemetry = testing::telemetry();
    let work = async {
        let outer = async {
            let span = tracing::info_span!("enclosing", order = 7);
            let (task, blocking) = span.in_scope(|| {
                let work = async {
                    tracing::info!("in the task");
                    Span::internal("task").in_scope(|| ());
                };
                let blocking = || Span::internal("blocking").in_scope(|| tracing::info!("on the thread"));
                (otel_service::spawn(work), otel_service::spawn_blocking(blocking))
            });
            task.await.unwrap();
            blocking.await.unwrap();
            let context = context_span();
            let thread =
                std::thread::spawn(move || context.in_scope(|| Span::internal("thread").in_scope(|| ())));
            thread.join().unwrap();
            Ok::<_, Infallible>(())
        };
        Span::internal("outer").run(outer).await.unwrap();
    };
    let trace_id = telemetry.in_trace(work).await;
    let spans = telemetry.spans(&trace_id);
    let id = |name: &str| &spans.iter().find(|span| span.name == name).unwrap().span_id;
    let parent = |name: &str| {
        &spans
            .iter()
            .find(|span| span.name == name)
            .unwrap()
            .parent_span_id
    };
    for (child, expected) in [
        ("task", "enclosing"),
        ("blocking", "enclosing"),
        ("thread", "outer"),
    ] {
        assert_eq!(parent(child), id(expected), "{child}");
    }
    let records = telemetry.log_records(&trace_id);
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(value(&record.attributes, "order"), Some(Value::IntValue(7)));
    }
}

#[tokio::test]
async fn the_addresses_of_client_and_peer_come_from_the_server() {
    let peer = |address: &str| -> SocketAddr { address.parse().unwrap() };
    let proxied = ClientAddress(peer("192.0.2.1:0"));
    let requests = [
        ("/direct", Some(peer("192.0.2.7:1234")), None),
        ("/mapped", Some(peer("[::ffff:192.0.2.7]:1234")), None),
        ("/proxied", Some(peer("[2001:db8::7]:1234")), Some(proxied)),
        ("/unknown", None, None),
    ];
    let spans = spans_of(async {
        let connected = |parts: &http::request::Parts| parts.extensions.get::<SocketAddr>().copied();
        let layer = HttpLayer::new(|parts| Some(parts.uri.path())).peer_address(connected);
        let respond =
            tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        for (path, peer, client) in requests {
            let mut request = Request::get(path).body(()).unwrap();
            let extensions = request.extensions_mut();
            peer.and_then(|peer| extensions.insert(peer));
            client.and_then(|client| extensions.insert(client));
            drop(layer.layer(respond).oneshot(request).await.unwrap());
        }
    })
    .await;
    for (path, client, peer) in [
        ("/direct", "192.0.2.7", "192.0.2.7"),
        ("/mapped", "192.0.2.7", "192.0.2.7"),
        ("/proxied", "192.0.2.1", "2001:db8::7"),
    ] {
        let attributes = &spans[&format!("GET {path}")].attributes;
        assert_eq!(text(attributes, "client.address"), client, "{path}");
        assert_eq!(text(attributes, "network.peer.address"), peer, "{path}");
        assert_eq!(
            value(attributes, "network.peer.port"),
            Some(Value::IntValue(1234))
        );
    }
    for key in ["client.address", "network.peer.address", "network.peer.port"] {
        assert_eq!(value(&spans["GET /unknown"].attributes, key), None);
    }
}

/// Scopes of the spans named `name`: name, version, schema URL of the group, and attributes.
fn scopes_of(memory: &InMemory, name: &str) -> Vec<(String, String, String, usize)> {
    let requests = memory.requests(Signal::Traces).into_iter();
    let groups = requests
        .map(|request| ExportTraceServiceRequest::decode(request.protobuf().clone()).unwrap())
        .flat_map(|request| request.resource_spans)
        .inspect(|group| assert_eq!(group.schema_url, names::SCHEMA_URL))
        .flat_map(|group| group.scope_spans);
    groups
        .filter(|group| group.spans.iter().any(|span| span.name == name))
        .map(|group| {
            let scope = group.scope.unwrap_or_default();
            (
                scope.name,
                scope.version,
                group.schema_url,
                scope.attributes.len(),
            )
        })
        .collect()
}

#[test]
fn spans_have_the_scope_that_created_them() {
    static CACHE: Instrumentation =
        Instrumentation::new("my-cache", "2.1.0").with_schema_url("https://opentelemetry.io/schemas/1.44.0");
    let telemetry = testing::telemetry();
    Span::internal("of the service").in_scope(|| ());
    let lookup = CACHE.start(
        &Context::new(),
        SpanStart::new("of the library", SpanKind::Client),
        |_| (),
    );
    lookup.span().end();
    let scope = InstrumentationScope::builder("of the API")
        .with_version("3")
        .with_schema_url("https://example.com/schema")
        .with_attributes([KeyValue::new("edition", "blue")]);
    opentelemetry::global::tracer_with_scope(scope.build())
        .start("of the API")
        .end();
    let memory = telemetry.flushed();
    for (span, expected) in [
        ("of the service", ("test", "0", "", 0)),
        (
            "of the library",
            ("my-cache", "2.1.0", "https://opentelemetry.io/schemas/1.44.0", 0),
        ),
        ("of the API", ("of the API", "3", "https://example.com/schema", 1)),
    ] {
        let scopes = scopes_of(memory, span);
        let (name, version, url, attributes) = &scopes[0];
        assert_eq!((&**name, &**version, &**url, *attributes), expected);
        assert_eq!(scopes.len(), 1);
    }
}
