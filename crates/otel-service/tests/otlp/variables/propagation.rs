//! `OTEL_PROPAGATORS`: the headers read from requests, and the headers written into calls and tasks.

use std::sync::mpsc;

use http::{HeaderMap, Request, Response};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::TraceContextExt;
use otel_service::instrumentation::{Instrumentation, SpanStart, inject_context_of};
use otel_service::{Context, HttpLayer, Propagation};
use tower::{Layer, ServiceExt};

use super::LONG;
use crate::support::{self, Behaviour, Problem};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Returns the headers named in `only`; all formats carry the same context.
fn every_form(only: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("traceparent", format!("00-{TRACE}-{SPAN}-01")),
        ("tracestate", "vendor=1".to_owned()),
        ("baggage", "tenant=blue".to_owned()),
        ("b3", format!("{TRACE}-{SPAN}-1")),
        ("x-b3-traceid", TRACE.to_owned()),
        ("x-b3-spanid", SPAN.to_owned()),
        ("x-b3-sampled", "1".to_owned()),
    ] {
        if only.contains(&name) {
            headers.insert(name, value.parse().unwrap());
        }
    }
    headers
}

/// Context that a request receives and propagates.
#[derive(Debug, Eq, PartialEq)]
struct Propagated {
    /// Whether the request continues the trace of the caller.
    same_trace: bool,
    tenant: Option<String>,
    /// Names of the headers of a call within the request.
    call: Vec<String>,
    /// Names of the headers of a task sent within the request.
    task: Vec<String>,
}

fn names(headers: Vec<(String, String)>) -> Vec<String> {
    let mut names: Vec<String> = headers.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

static QUEUE: Instrumentation = Instrumentation::new("queue", "1");

fn propagate() -> Propagated {
    let start = SpanStart::new("send", SpanKind::Producer);
    let sending = QUEUE.start(&Context::current(), start, |_| {});
    let task = inject_context_of(&sending);
    sending.span().end();
    for headers in [&task, &otel_service::inject_context()] {
        // Every written format can be read back.
        let written = otel_service::extract_context(headers.iter().map(|(name, value)| (&**name, &**value)));
        let trace_id = written.span().span_context().trace_id().to_string();
        let carries_a_trace = headers.iter().any(|(name, _)| name != "baggage");
        assert_eq!(
            carries_a_trace,
            trace_id == otel_service::current_trace_id().unwrap()
        );
    }
    Propagated {
        same_trace: otel_service::current_trace_id().as_deref() == Some(TRACE),
        tenant: otel_service::Context::map_current(|cx| cx.baggage().get("tenant").map(ToString::to_string)),
        call: names(otel_service::inject_context()),
        task: names(task),
    }
}

/// Sends a request with the named headers of [`every_form`] to a service with `OTEL_PROPAGATORS` set to
/// `propagators`, and compares the propagated context with `expected`.
fn check(name: &str, propagators: Option<&str>, headers: &[&str], expected: &Propagated) {
    let name = format!("variables::propagation::{name}");
    let variable: Vec<_> = propagators
        .map(|list| ("OTEL_PROPAGATORS", list))
        .into_iter()
        .collect();
    support::run(&name, Behaviour::Accepts, &variable, || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        let (sender, receiver) = mpsc::channel();
        let service = HttpLayer::new(|_| None)
            .propagation(Propagation::ALL)
            .layer(tower::service_fn(|_: Request<()>| async {
                sender.send(propagate()).unwrap();
                Ok::<_, Problem>(Response::new(String::new()))
            }));
        let mut request = Request::new(());
        *request.headers_mut() = every_form(headers);
        support::block_on(service.oneshot(request)).unwrap();
        assert_eq!(receiver.recv().unwrap(), *expected);
        telemetry.shutdown(LONG).unwrap();
    });
}

fn propagated(same_trace: bool, tenant: Option<&str>, headers: &[&str]) -> Propagated {
    let headers: Vec<String> = headers.iter().map(|&name| name.to_owned()).collect();
    Propagated {
        same_trace,
        tenant: tenant.map(str::to_owned),
        call: headers.clone(),
        task: headers,
    }
}

const B3_MULTI: [&str; 3] = ["x-b3-sampled", "x-b3-spanid", "x-b3-traceid"];

#[test]
fn trace_context_and_baggage_are_the_default() {
    check(
        "trace_context_and_baggage_are_the_default",
        None,
        &["traceparent", "tracestate", "baggage"],
        &propagated(true, Some("blue"), &["baggage", "traceparent", "tracestate"]),
    );
}

#[test]
fn b3_is_not_read_by_default() {
    let headers = ["b3", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid"];
    check(
        "b3_is_not_read_by_default",
        None,
        &headers,
        &propagated(false, None, &["traceparent"]),
    );
}

#[test]
fn trace_context_alone_carries_no_baggage() {
    check(
        "trace_context_alone_carries_no_baggage",
        Some("tracecontext"),
        &["traceparent", "baggage"],
        &propagated(true, None, &["traceparent"]),
    );
}

#[test]
fn baggage_alone_carries_no_trace() {
    check(
        "baggage_alone_carries_no_trace",
        Some("baggage"),
        &["traceparent", "baggage"],
        &Propagated {
            same_trace: false,
            tenant: Some("blue".to_owned()),
            call: vec!["baggage".to_owned()],
            task: vec!["baggage".to_owned()],
        },
    );
}

#[test]
fn b3_writes_one_header() {
    check(
        "b3_writes_one_header",
        Some("b3"),
        &["b3"],
        &propagated(true, None, &["b3"]),
    );
}

#[test]
fn b3_also_reads_several_headers() {
    check(
        "b3_also_reads_several_headers",
        Some("b3"),
        &B3_MULTI,
        &propagated(true, None, &["b3"]),
    );
}

#[test]
fn b3multi_writes_several_headers() {
    check(
        "b3multi_writes_several_headers",
        Some("b3multi"),
        &B3_MULTI,
        &propagated(true, None, &B3_MULTI),
    );
}

#[test]
fn several_propagators_write_all_their_headers() {
    check(
        "several_propagators_write_all_their_headers",
        Some("b3, tracecontext,b3"),
        &["b3"],
        &propagated(true, None, &["b3", "traceparent"]),
    );
}

#[test]
fn none_propagates_nothing() {
    check(
        "none_propagates_nothing",
        Some("none"),
        &["traceparent", "tracestate", "baggage", "b3"],
        &propagated(false, None, &[]),
    );
}
