//! `OTEL_PROPAGATORS`: what is understood in the headers of a request, and what is written into those of a call and of a
//! task.

use std::sync::mpsc;

use http::{HeaderMap, Request, Response};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use otel_service::{HttpLayer, Messaging, TaskMessage};
use tower::{Layer, ServiceExt};

use super::LONG;
use crate::support::{self, Behaviour, Problem};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Every form of one context, and a baggage.
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

/// What a request sees and passes on.
#[derive(Debug, Eq, PartialEq)]
struct Carried {
    /// Whether it goes on with the caller's trace.
    same_trace: bool,
    tenant: Option<String>,
    /// The headers that a call made in it gets, by name.
    call: Vec<String>,
    /// Those of a task sent by it.
    task: Vec<String>,
}

fn names(headers: Vec<(String, String)>) -> Vec<String> {
    let mut names: Vec<String> = headers.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

fn look() -> Carried {
    let message = TaskMessage {
        task: "app.notify",
        id: "task-1",
        queue: "celery",
    };
    let sending = Messaging::new("celery@here").send(&message, None);
    let task = sending.headers();
    sending.finish(Ok(()));
    for headers in [&task, &otel_service::inject_context()] {
        // Whatever form is written can be read again.
        let written = otel_service::extract_context(headers.iter().map(|(name, value)| (&**name, &**value)));
        let trace_id = written.span().span_context().trace_id().to_string();
        let carries_a_trace = headers.iter().any(|(name, _)| name != "baggage");
        assert_eq!(
            carries_a_trace,
            trace_id == otel_service::current_trace_id().unwrap()
        );
    }
    Carried {
        same_trace: otel_service::current_trace_id().as_deref() == Some(TRACE),
        tenant: otel_service::Context::map_current(|cx| cx.baggage().get("tenant").map(ToString::to_string)),
        call: names(otel_service::inject_context()),
        task: names(task),
    }
}

/// A request with those `headers` of [`every_form`] in a service whose `OTEL_PROPAGATORS` is `propagators`.
fn check(name: &str, propagators: Option<&str>, headers: &[&str], expected: &Carried) {
    let name = format!("variables::propagation::{name}");
    let variable: Vec<_> = propagators
        .map(|list| ("OTEL_PROPAGATORS", list))
        .into_iter()
        .collect();
    support::run(&name, Behaviour::Takes, &variable, || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        let (tell, told) = mpsc::channel();
        let service = HttpLayer::new(|_| None).layer(tower::service_fn(|_: Request<()>| async {
            tell.send(look()).unwrap();
            Ok::<_, Problem>(Response::new(String::new()))
        }));
        let mut request = Request::new(());
        *request.headers_mut() = every_form(headers);
        support::block_on(service.oneshot(request)).unwrap();
        assert_eq!(told.recv().unwrap(), *expected);
        telemetry.shutdown(LONG).unwrap();
    });
}

fn carried(same_trace: bool, tenant: Option<&str>, headers: &[&str]) -> Carried {
    let headers: Vec<String> = headers.iter().map(|&name| name.to_owned()).collect();
    Carried {
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
        &carried(true, Some("blue"), &["baggage", "traceparent", "tracestate"]),
    );
}

#[test]
fn b3_is_not_read_by_default() {
    let headers = ["b3", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid"];
    check(
        "b3_is_not_read_by_default",
        None,
        &headers,
        &carried(false, None, &["traceparent"]),
    );
}

#[test]
fn trace_context_alone_carries_no_baggage() {
    check(
        "trace_context_alone_carries_no_baggage",
        Some("tracecontext"),
        &["traceparent", "baggage"],
        &carried(true, None, &["traceparent"]),
    );
}

#[test]
fn baggage_alone_carries_no_trace() {
    check(
        "baggage_alone_carries_no_trace",
        Some("baggage"),
        &["traceparent", "baggage"],
        &Carried {
            same_trace: false,
            tenant: Some("blue".to_owned()),
            call: vec!["baggage".to_owned()],
            task: vec!["baggage".to_owned()],
        },
    );
}

#[test]
fn b3_is_one_header() {
    check(
        "b3_is_one_header",
        Some("b3"),
        &["b3"],
        &carried(true, None, &["b3"]),
    );
}

#[test]
fn b3_in_several_headers_is_understood_by_either() {
    check(
        "b3_in_several_headers_is_understood_by_either",
        Some("b3"),
        &B3_MULTI,
        &carried(true, None, &["b3"]),
    );
}

#[test]
fn b3multi_is_several_headers() {
    check(
        "b3multi_is_several_headers",
        Some("b3multi"),
        &B3_MULTI,
        &carried(true, None, &B3_MULTI),
    );
}

#[test]
fn several_propagators_write_all_their_headers() {
    check(
        "several_propagators_write_all_their_headers",
        Some("b3, tracecontext,b3"),
        &["b3"],
        &carried(true, None, &["b3", "traceparent"]),
    );
}

#[test]
fn none_carries_nothing() {
    check(
        "none_carries_nothing",
        Some("none"),
        &["traceparent", "tracestate", "baggage", "b3"],
        &carried(false, None, &[]),
    );
}
