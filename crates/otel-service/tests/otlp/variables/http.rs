//! `OTEL_INSTRUMENTATION_HTTP_*`: known methods, captured headers and paths without spans.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use otel_service::{HttpClientLayer, HttpLayer};
use tower::{Layer, ServiceExt, service_fn};

use super::LONG;
use crate::support::{self, Behaviour, Received, json_lines, value};

/// Runs a process that sends requests with these methods, paths and headers through the layers of client and server.
fn exchange(
    name: &str,
    environment: &[(&str, &str)],
    requests: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Option<(Received, String)> {
    let test = format!("variables::http::{name}");
    let run = support::run(&test, Behaviour::Accepts, environment, || {
        let telemetry = support::init().unwrap();
        for (method, path) in requests {
            let server = HttpLayer::new(|_| Some("/route")).layer(service_fn(|_: Request<()>| async {
                let response = Response::builder()
                    .header("content-language", "en")
                    .header("content-language", "de")
                    .header("set-cookie", "sid=s3cret")
                    .header("x-auth-token", "s3cret");
                Ok::<_, Infallible>(response.body(Empty::<&[u8]>::new()).unwrap())
            }));
            let mut request = Request::builder()
                .method(*method)
                .uri(format!("http://shop.test{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let client = HttpClientLayer::new().layer(server);
            let response = client.oneshot(request.body(()).unwrap());
            assert!(
                support::block_on(response)
                    .unwrap()
                    .headers()
                    .contains_key("traceresponse")
            );
        }
        telemetry.shutdown(LONG).unwrap();
    })?;
    Some((run.received, run.stdout))
}

fn names(received: &Received, kind: SpanKind) -> Vec<&str> {
    let spans = received.spans.iter().filter(|span| span.kind() == kind);
    let mut names: Vec<&str> = spans.map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Returns the methods in the attributes of the metrics of the server.
fn measured_methods(received: &Received) -> Vec<String> {
    let points = received.histogram("http.server.request.duration");
    let methods = points
        .iter()
        .map(|point| value(&point.attributes, "http.request.method"));
    let mut methods: Vec<String> = methods.map(Option::unwrap).collect();
    methods.sort();
    methods
}

const METHODS: [(&str, &str); 4] = [("QUERY", "/"), ("BREW", "/"), ("GET", "/"), ("get", "/")];

#[test]
fn query_is_a_known_method() {
    let name = "query_is_a_known_method";
    let Some((received, _)) = exchange(name, &[], &METHODS, &[]) else {
        return;
    };
    assert_eq!(
        names(&received, SpanKind::Server),
        ["GET /route", "HTTP /route", "HTTP /route", "QUERY /route"]
    );
    assert_eq!(
        names(&received, SpanKind::Client),
        ["GET", "HTTP", "HTTP", "QUERY"]
    );
    assert_eq!(
        measured_methods(&received),
        ["\"GET\"", "\"QUERY\"", "\"_OTHER\""]
    );
}

#[test]
fn the_variable_replaces_the_known_methods() {
    let name = "the_variable_replaces_the_known_methods";
    let list = ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", " QUERY,BREW, ,B REW,");
    let requests = [&METHODS[..], &[("HEAD", "/")]].concat();
    let Some((received, stdout)) = exchange(name, &[list], &requests, &[]) else {
        return;
    };
    assert_eq!(
        names(&received, SpanKind::Server),
        [
            "BREW /route",
            "HTTP /route",
            "HTTP /route",
            "HTTP /route",
            "QUERY /route"
        ]
    );
    assert_eq!(
        names(&received, SpanKind::Client),
        ["BREW", "HTTP", "HTTP", "HTTP", "QUERY"]
    );
    assert_eq!(
        measured_methods(&received),
        ["\"BREW\"", "\"QUERY\"", "\"_OTHER\""]
    );
    let mut originals: Vec<String> = received
        .spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Server)
        .filter_map(|span| value(&span.attributes, "http.request.method_original"))
        .collect();
    originals.sort();
    assert_eq!(originals, ["\"GET\"", "\"HEAD\"", "\"get\""]);
    let warning = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS has entries that are not HTTP methods (1)";
    let warns = |line: &serde_json::Value| line["message"].as_str().unwrap().starts_with(warning);
    assert!(json_lines(&stdout).iter().any(warns), "{stdout}");
}

/// Returns the captured headers of a span.
fn captured(span: &Span) -> Vec<String> {
    let attributes = span.attributes.iter();
    let headers = attributes.filter_map(|attribute| {
        let name = attribute.key.strip_prefix("http.")?;
        name.contains(".header.").then_some(())?;
        let Some(Value::ArrayValue(lines)) = &attribute.value.as_ref()?.value else {
            panic!("{attribute:?}");
        };
        let lines = lines.values.iter().map(|line| match &line.value {
            Some(Value::StringValue(text)) => text.as_str(),
            other => panic!("{other:?}"),
        });
        Some(format!("{name}={}", lines.collect::<Vec<_>>().join("|")))
    });
    let mut headers: Vec<_> = headers.collect();
    headers.sort();
    headers
}

#[test]
fn headers_are_captured_without_secrets() {
    let name = "headers_are_captured_without_secrets";
    let environment = [
        (
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
            "Accept.*, x-tenant,authorization,Cookie,not here,x-missing",
        ),
        (
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
            "Content-Language,Set-Cookie",
        ),
        ("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", "X-*"),
        (
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE",
            "x-auth-token",
        ),
    ];
    let headers = [
        ("accept", "text/html"),
        ("accept", "*/*"),
        ("accept-language", "de"),
        ("authorization", "Basic s3cret"),
        ("cookie", "sid=s3cret"),
        ("x-tenant", "blue of carol@example.com"),
        ("x-other", "1"),
    ];
    let Some((received, _)) = exchange(name, &environment, &[("GET", "/")], &headers) else {
        return;
    };
    assert_eq!(
        captured(received.span("GET /route")),
        [
            "request.header.accept-language=de",
            "request.header.accept=text/html|*/*",
            "request.header.authorization=REDACTED",
            "request.header.cookie=REDACTED",
            "request.header.x-tenant=blue of ca***@example.com",
            "response.header.content-language=en|de",
            "response.header.set-cookie=REDACTED",
        ]
    );
    assert_eq!(
        captured(received.span("GET")),
        [
            "request.header.x-other=1",
            "request.header.x-tenant=blue of ca***@example.com",
            "response.header.x-auth-token=REDACTED",
        ]
    );
    assert!(!format!("{received:?}").contains("s3cret"));
}

#[test]
fn no_headers_are_captured_by_default() {
    let name = "no_headers_are_captured_by_default";
    let headers = [("accept", "text/html"), ("user-agent", "curl/8")];
    let Some((received, _)) = exchange(name, &[], &[("GET", "/")], &headers) else {
        return;
    };
    for span in &received.spans {
        assert_eq!(captured(span), Vec::<String>::new());
    }
}

#[test]
fn excluded_paths_have_no_spans() {
    let name = "excluded_paths_have_no_spans";
    let list = (
        "OTEL_INSTRUMENTATION_HTTP_EXCLUDED_URLS",
        "/metrics,/internal/*,healthcheck,client/.*/info",
    );
    let requests = [
        "/metrics",
        "/internal/a",
        "/api/healthcheck/1",
        "/client/7/info",
        "/metrics/a",
        "/a/internal/b",
        "/client/info",
        // Only the path counts.
        "/orders?x=/metrics&y=healthcheck",
    ];
    let requests: Vec<_> = requests.into_iter().map(|path| ("GET", path)).collect();
    let Some((received, _)) = exchange(name, &[list], &requests, &[("host", "healthcheck")]) else {
        return;
    };
    let servers = received
        .spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Server);
    let mut paths: Vec<_> = servers
        .map(|span| value(&span.attributes, "url.path").unwrap())
        .collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "\"/a/internal/b\"",
            "\"/client/info\"",
            "\"/metrics/a\"",
            "\"/orders\""
        ]
    );
    // Requests without spans are counted.
    let counted = received.numbers("http_requests_total");
    assert_eq!(counted.iter().map(support::number).sum::<f64>().to_string(), "8");
}
