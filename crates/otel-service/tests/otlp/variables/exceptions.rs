//! `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use opentelemetry::trace::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use otel_service::instrumentation::{Instrumentation, Operation, SpanStart, record_exception};
use otel_service::opentelemetry::trace::TraceContextExt as _;
use otel_service::{
    Context, Database, GrpcClientLayer, HttpClientLayer, HttpLayer, ServerError, Span, Statement,
};
use tower::{Layer, ServiceExt, service_fn};

use super::LONG;
use crate::support::{self, Behaviour, Problem, Received, value};

static QUEUE: Instrumentation = Instrumentation::new("queue", "1");

const VARIABLE: &str = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN";

const DELETE: Statement = Statement::new("DELETE", "users", "DELETE users", "DELETE FROM users");

/// Event name and severity of the exceptions of [`fail_in_every_way`], with the span that each belongs to.
const EXCEPTIONS: [(&str, &str, &str); 7] = [
    ("db.client.operation.exception", "WARN", "DELETE users"),
    ("exception", "WARN", "work"),
    ("http.client.request.exception", "WARN", "GET"),
    ("http.server.request.exception", "ERROR", "GET /failing"),
    ("messaging.process.exception", "ERROR", "two"),
    ("messaging.send.exception", "WARN", "one"),
    ("rpc.client.call.exception", "WARN", "shop.Stock/Reserve"),
];

fn problem() -> Problem {
    Problem::Broken("of carol@example.com".to_owned())
}

fn fail_in_every_way() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    support::block_on(async {
        let broken = service_fn(async |_: Request<()>| Err::<Response<Body>, _>(problem()));
        let request = |uri: &str| Request::get(uri).body(()).unwrap();
        let client = HttpClientLayer::new().layer(broken);
        client.oneshot(request("http://shop.test/")).await.unwrap_err();
        let grpc = GrpcClientLayer::new().layer(broken);
        grpc.oneshot(request("http://shop.test/shop.Stock/Reserve"))
            .await
            .unwrap_err();
        let server = HttpLayer::new(|_| Some("/failing")).layer(service_fn(async |_: Request<()>| {
            let mut response = Response::builder().status(500).body(Body::empty()).unwrap();
            response.extensions_mut().insert(ServerError {
                error_type: "problem.broken".into(),
                message: otel_service::Failure::message(&problem()),
            });
            Ok::<_, Infallible>(response)
        }));
        drop(server.oneshot(request("/")).await.unwrap());
        let database = Database::new("postgresql", "shop".to_owned(), None);
        let failed = database.observe(&DELETE, async { Err::<(), _>(problem()) });
        failed.await.unwrap_err();
        let work = async { Err::<(), _>(problem()) };
        Span::internal("work").run(work).await.unwrap_err();
        let panics = || Span::internal("inner").in_scope(|| panic!("of the test"));
        std::panic::catch_unwind(panics).unwrap_err();
    });
    for (operation, name) in [
        (Operation::MessagingSend, "one"),
        (Operation::MessagingProcess, "two"),
    ] {
        let cx = QUEUE.start(&Context::new(), SpanStart::new(name, SpanKind::Internal), |_| ());
        let message = otel_service::Failure::message(&problem());
        record_exception(&cx, operation, "problem.broken".into(), message);
        cx.span().end();
    }
    telemetry.shutdown(LONG).unwrap();
}

/// Runs the scenario with `value` in the variable; returns what arrived, and the exceptions among the log records, as in
/// [`EXCEPTIONS`].
fn exceptions(test: &str, environment: &[(&str, &str)]) -> Option<(Received, Vec<[String; 3]>)> {
    let test = format!("variables::exceptions::{test}");
    let received = support::run(&test, Behaviour::Accepts, environment, fail_in_every_way)?.received;
    let named = received.logs.iter().filter(|log| !log.event_name.is_empty());
    let mut exceptions: Vec<_> = named
        .map(|log| {
            let its = received.spans.iter().find(|span| span.span_id == log.span_id);
            let span = its.map_or("", |span| &span.name).to_owned();
            assert_eq!(
                value(&log.attributes, "exception.message").unwrap(),
                "\"of ca***@example.com\""
            );
            assert!(value(&log.attributes, "exception.type").is_some());
            [log.event_name.clone(), log.severity_text.clone(), span]
        })
        .collect();
    exceptions.sort();
    Some((received, exceptions))
}

fn span_events(received: &Received) -> usize {
    let events = received.spans.iter().flat_map(|span| &span.events);
    events.filter(|event| event.name == "exception").count()
}

/// The number of spans that failed, which no value changes.
fn failures(received: &Received) -> usize {
    let has_failed = |span: &&opentelemetry_proto::tonic::trace::v1::Span| {
        span.status
            .as_ref()
            .is_some_and(|status| status.code() == StatusCode::Error)
            && value(&span.attributes, "error.type").is_some()
    };
    received.spans.iter().filter(has_failed).count()
}

#[test]
fn exceptions_are_span_events_by_default() {
    let test = "exceptions_are_span_events_by_default";
    let Some((received, logged)) = exceptions(test, &[]) else {
        return;
    };
    assert_eq!((span_events(&received), failures(&received)), (8, 8));
    assert_eq!(logged, Vec::<[String; 3]>::new());
}

#[test]
fn an_unknown_value_is_the_default() {
    let test = "an_unknown_value_is_the_default";
    let Some((received, logged)) = exceptions(test, &[(VARIABLE, "events")]) else {
        return;
    };
    assert_eq!((span_events(&received), logged.len()), (8, 0));
}

#[test]
fn exceptions_are_log_records_instead() {
    let test = "exceptions_are_log_records_instead";
    let Some((received, logged)) = exceptions(test, &[(VARIABLE, "Logs")]) else {
        return;
    };
    assert_eq!((span_events(&received), failures(&received)), (0, 8));
    assert_eq!(
        logged,
        EXCEPTIONS.map(|(name, level, span)| [name, level, span].map(str::to_owned))
    );
    // The hook logs the panic, once.
    let panics = received
        .logs
        .iter()
        .filter(|log| support::body_of(log) == Some("panicked"));
    assert_eq!(panics.count(), 1);
}

#[test]
fn exceptions_are_span_events_and_log_records() {
    let test = "exceptions_are_span_events_and_log_records";
    let Some((received, logged)) = exceptions(test, &[(VARIABLE, "logs/dup")]) else {
        return;
    };
    assert_eq!((span_events(&received), failures(&received)), (8, 8));
    assert_eq!(logged.len(), EXCEPTIONS.len());
}

#[test]
fn exceptions_of_spans_that_are_not_sampled_are_logged() {
    let test = "exceptions_of_spans_that_are_not_sampled_are_logged";
    let environment = [(VARIABLE, "logs"), ("OTEL_TRACES_SAMPLER", "always_off")];
    let Some((received, logged)) = exceptions(test, &environment) else {
        return;
    };
    assert_eq!((received.spans.len(), logged.len()), (0, EXCEPTIONS.len()));
    assert!(received.logs.iter().all(|log| !log.span_id.is_empty()));
}
