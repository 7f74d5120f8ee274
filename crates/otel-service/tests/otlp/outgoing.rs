//! Calls to other services: HTTP and gRPC clients, and propagation across trust boundaries.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use otel_service::{
    Context, GrpcClientLayer, HttpClientLayer, HttpLayer, KeyValue, Propagation, Span, Telemetry,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{self, Behaviour, Problem, Received, shown};

const DEADLINE: Duration = Duration::from_secs(10);

/// Runs `work` in the span `work` with telemetry, in a context with baggage.
fn with_telemetry(work: impl AsyncFnOnce()) {
    let telemetry: Telemetry = otel_service::init(support::SERVICE).unwrap();
    support::block_on(async {
        let baggage = [
            KeyValue::new("tenant", "blue"),
            KeyValue::new("session", "s3cret"),
        ];
        let run = async {
            work().await;
            Ok::<_, Problem>(())
        };
        let cx = Context::current_with_baggage(baggage);
        Span::internal("work").parent(cx).run(run).await.unwrap();
    });
    telemetry.shutdown(DEADLINE).unwrap();
}

/// Returns the only client span and the attributes of the only point of its duration.
fn the_call<'a>(
    received: &'a Received,
    duration: &str,
) -> (&'a opentelemetry_proto::tonic::trace::v1::Span, Vec<String>) {
    let mut calls = received
        .spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Client);
    let call = calls.next().expect("a client span");
    assert!(calls.next().is_none());
    assert_eq!(call.parent_span_id, received.span("work").span_id);
    let points = received.histogram(duration);
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].count, 1);
    assert_eq!(points[0].exemplars[0].span_id, call.span_id);
    (call, shown(&points[0].attributes))
}

fn status_of(span: &opentelemetry_proto::tonic::trace::v1::Span) -> (SpanStatus, &str) {
    let status = span.status.as_ref();
    status.map_or((SpanStatus::Unset, ""), |status| (status.code(), &status.message))
}

/// Calls a service that responds with 404 through `layer`, and returns the headers that it received.
async fn call(layer: HttpClientLayer, uri: &str) -> HeaderMap {
    let (sender, receiver) = mpsc::channel();
    let server = HttpLayer::new(|_| None).layer(service_fn(move |request: Request<()>| {
        sender.send(request.headers().clone()).unwrap();
        async {
            Ok::<_, Infallible>(
                Response::builder()
                    .status(404)
                    .body(Empty::<Bytes>::new())
                    .unwrap(),
            )
        }
    }));
    let request = Request::post(uri).body(()).unwrap();
    layer.layer(server).oneshot(request).await.unwrap();
    receiver.recv().unwrap()
}

#[test]
fn an_http_request_has_a_client_span_that_the_server_continues() {
    let test = "outgoing::an_http_request_has_a_client_span_that_the_server_continues";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            call(
                HttpClientLayer::new(),
                "https://me:s3cret@shop.test/a?token=s3cret",
            )
            .await;
        });
    }) else {
        return;
    };
    let received = &run.received;
    let (span, labels) = the_call(received, "http.client.request.duration");
    let common = [
        "error.type=\"404\"",
        "http.request.method=\"POST\"",
        "http.response.status_code=404",
        "network.protocol.version=\"1.1\"",
        "server.address=\"shop.test\"",
        "server.port=443",
    ];
    assert_eq!(labels, [&common[..], &["url.scheme=\"https\""]].concat());
    // Masking replaces passwords of URLs too.
    let url = "url.full=\"https://REDACTED:***@shop.test/a?token=REDACTED\"";
    assert_eq!(
        shown(&span.attributes),
        [&common[..], &[url, "url.scheme=\"https\""]].concat()
    );
    assert_eq!(
        (span.name.as_str(), status_of(span)),
        ("POST", (SpanStatus::Error, ""))
    );
    let server = received
        .spans
        .iter()
        .find(|span| span.kind() == SpanKind::Server)
        .unwrap();
    assert_eq!(server.parent_span_id, span.span_id);
    assert_eq!(server.trace_id, span.trace_id);
}

#[test]
fn a_request_without_response_is_a_failure() {
    let test = "outgoing::a_request_without_response_is_a_failure";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let broken = service_fn(async |_: Request<()>| {
                Err::<Response<()>, _>(std::io::Error::other("connection of bob@example.com reset"))
            });
            let request = Request::get("http://hooks.test:81/services/s3cret")
                .body(())
                .unwrap();
            let client = HttpClientLayer::new().hide_path().layer(broken);
            client.oneshot(request).await.unwrap_err();
        });
    }) else {
        return;
    };
    let (span, labels) = the_call(&run.received, "http.client.request.duration");
    assert!(
        labels.contains(&"error.type=\"std::io::error::Error\"".to_owned()),
        "{labels:?}"
    );
    let message = "connection of bo***@example.com reset";
    assert_eq!(status_of(span), (SpanStatus::Error, message));
    assert_eq!(span.events[0].name, "exception");
    let url = support::value(&span.attributes, "url.full");
    assert_eq!(url.as_deref(), Some("\"http://hooks.test:81/REDACTED\""));
}

#[test]
fn a_dropped_request_is_a_cancellation() {
    let test = "outgoing::a_dropped_request_is_a_cancellation";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let slow =
                service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>());
            let request = Request::get("http://shop.test/").body(()).unwrap();
            let call = HttpClientLayer::new().layer(slow).oneshot(request);
            tokio::time::timeout(Duration::from_millis(1), call)
                .await
                .unwrap_err();
        });
    }) else {
        return;
    };
    let (span, labels) = the_call(&run.received, "http.client.request.duration");
    assert!(
        labels.contains(&"error.type=\"cancelled\"".to_owned()),
        "{labels:?}"
    );
    assert_eq!(status_of(span).0, SpanStatus::Unset);
}

#[test]
fn baggage_and_trace_context_cross_a_boundary_only_by_choice() {
    let test = "outgoing::baggage_and_trace_context_cross_a_boundary_only_by_choice";
    support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let only_tenant = Propagation::TRACE_CONTEXT.baggage_keys(&["tenant"]);
            for (propagation, has_trace, baggage) in [
                (None, true, None),
                (Some(Propagation::NOTHING), false, None),
                (Some(only_tenant), true, Some("tenant=blue")),
                (
                    Some(Propagation::NOTHING.baggage_keys(&["tenant"])),
                    false,
                    Some("tenant=blue"),
                ),
            ] {
                let mut layer = HttpClientLayer::new();
                if let Some(propagation) = propagation {
                    layer = layer.propagation(propagation);
                }
                let headers = call(layer, "http://shop.test/").await;
                assert_eq!(headers.contains_key("traceparent"), has_trace, "{propagation:?}");
                let sent = headers.get("baggage").map(|value| value.to_str().unwrap());
                assert_eq!(sent, baggage, "{propagation:?}");
            }
            let all = call(
                HttpClientLayer::new().propagation(Propagation::ALL),
                "http://shop.test/",
            )
            .await;
            let sent = all["baggage"].to_str().unwrap();
            assert!(
                sent.contains("tenant=blue") && sent.contains("session=s3cret"),
                "{sent}"
            );
        });
    });
}

#[test]
fn a_server_accepts_only_the_chosen_parts_of_the_context() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let test = "outgoing::a_server_accepts_only_the_chosen_parts_of_the_context";
    support::run(test, Behaviour::Accepts, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        for (propagation, same_trace, tenant, session) in [
            (None, true, false, false),
            (Some(Propagation::ALL), true, true, true),
            (
                Some(Propagation::TRACE_CONTEXT.baggage_keys(&["tenant"])),
                true,
                true,
                false,
            ),
            (
                Some(Propagation::NOTHING.baggage_keys(&["tenant"])),
                false,
                true,
                false,
            ),
            (Some(Propagation::NOTHING), false, false, false),
        ] {
            let mut layer = HttpLayer::new(|_| None);
            if let Some(propagation) = propagation {
                layer = layer.propagation(propagation);
            }
            let service = layer.layer(service_fn(async |_: Request<()>| {
                let has = |key| Context::map_current(|cx| cx.baggage().get(key).is_some());
                let trace_id = otel_service::current_trace_id();
                let seen = (trace_id.as_deref() == Some(TRACE), has("tenant"), has("session"));
                Ok::<_, Infallible>(Response::new(format!("{seen:?}")))
            }));
            let request = Request::get("/")
                .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
                .header("baggage", "tenant=blue,session=s3cret")
                .body(())
                .unwrap();
            let (_, body) = support::block_on(support::read(service.oneshot(request)));
            assert_eq!(
                body,
                format!("{:?}", (same_trace, tenant, session)),
                "{propagation:?}"
            );
        }
        telemetry.shutdown(DEADLINE).unwrap();
    });
}

/// Calls a gRPC method whose response has `status` in its trailers, or in its headers if `is_trailers_only`.
fn grpc(
    test: &str,
    status: &'static [(&'static str, &'static str)],
    is_trailers_only: bool,
) -> Option<Received> {
    let run = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let status: HeaderMap = status
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
                .collect();
            let channel = service_fn(move |request: Request<()>| {
                assert!(request.headers().contains_key("traceparent"));
                let mut response = Response::builder();
                let mut trailers = None;
                if is_trailers_only {
                    response.headers_mut().unwrap().extend(status.clone());
                } else {
                    trailers = Some(Ok(status.clone()));
                }
                let body = Full::new(Bytes::from_static(b"message"));
                let body = body.with_trailers(std::future::ready(trailers));
                std::future::ready(response.body(body))
            });
            let layer = GrpcClientLayer::new().server("stock.test", 50_051);
            let request = Request::post("http://ignored/shop.Stock/Reserve")
                .body(())
                .unwrap();
            let response = layer.layer(channel).oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap();
        });
    });
    run.map(|run| run.received)
}

#[test]
fn a_grpc_call_ends_with_its_trailers() {
    let test = "outgoing::a_grpc_call_ends_with_its_trailers";
    let Some(received) = grpc(test, &[("grpc-status", "0")], false) else {
        return;
    };
    let (span, labels) = the_call(&received, "rpc.client.call.duration");
    let expected = [
        "rpc.method=\"shop.Stock/Reserve\"",
        "rpc.response.status_code=\"OK\"",
        "rpc.system.name=\"grpc\"",
        "server.address=\"stock.test\"",
        "server.port=50051",
    ];
    assert_eq!(labels, expected);
    assert_eq!(shown(&span.attributes), expected);
    assert_eq!(
        (span.name.as_str(), status_of(span)),
        ("shop.Stock/Reserve", (SpanStatus::Unset, ""))
    );
}

#[test]
fn a_grpc_error_without_messages_is_a_failure() {
    let test = "outgoing::a_grpc_error_without_messages_is_a_failure";
    let status = &[("grpc-status", "14"), ("grpc-message", "sold%20out")];
    let Some(received) = grpc(test, status, true) else {
        return;
    };
    let (span, labels) = the_call(&received, "rpc.client.call.duration");
    assert!(
        labels.contains(&"error.type=\"UNAVAILABLE\"".to_owned()),
        "{labels:?}"
    );
    assert_eq!(status_of(span), (SpanStatus::Error, "sold out"));
}

/// Starts a server that accepts one connection and responds with 204.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4_096];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    address
}

/// Checks that the only client span has the address of the server, which its duration does not have.
fn assert_peer(received: &Received, duration: &str, address: &str, port: Option<&str>) {
    let (span, labels) = the_call(received, duration);
    let peer = |key| support::value(&span.attributes, key);
    assert_eq!(peer("network.peer.address"), Some(format!("{address:?}")));
    assert_eq!(
        peer("network.peer.port").as_deref(),
        port.or(peer("server.port").as_deref())
    );
    assert!(
        labels.iter().all(|label| !label.starts_with("network.peer.")),
        "{labels:?}"
    );
}

#[test]
fn the_client_of_hyper_util_reports_the_address_of_the_server() {
    let test = "outgoing::the_client_of_hyper_util_reports_the_address_of_the_server";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
            let uri = format!("http://localhost:{}/", server().port());
            let request = Request::get(uri).body(Empty::new()).unwrap();
            HttpClientLayer::new()
                .layer(client)
                .oneshot(request)
                .await
                .unwrap();
        });
    }) else {
        return;
    };
    assert_peer(&run.received, "http.client.request.duration", "127.0.0.1", None);
}

#[test]
fn a_grpc_server_named_by_its_address_is_the_peer() {
    let test = "outgoing::a_grpc_server_named_by_its_address_is_the_peer";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            let channel = service_fn(async |_: Request<()>| {
                Response::builder()
                    .header("grpc-status", "0")
                    .body(Empty::<Bytes>::new())
            });
            let request = Request::post("http://[2001:db8::1]:50051/shop.Stock/Reserve");
            let layer = GrpcClientLayer::new();
            layer
                .layer(channel)
                .oneshot(request.body(()).unwrap())
                .await
                .unwrap();
        });
    }) else {
        return;
    };
    let (span, labels) = the_call(&run.received, "rpc.client.call.duration");
    assert!(
        labels.contains(&"server.address=\"2001:db8::1\"".to_owned()),
        "{labels:?}"
    );
    assert_eq!(span.name, "shop.Stock/Reserve");
    assert_peer(
        &run.received,
        "rpc.client.call.duration",
        "2001:db8::1",
        Some("50051"),
    );
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_requests_are_traced() {
    let test = "outgoing::reqwest_requests_are_traced";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            // Only needed if another crate of the build enables reqwest's `rustls-no-provider`.
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            // Nothing listens on port 9.
            let request = client.get("http://127.0.0.1:9/a?sig=s3cret");
            HttpClientLayer::new().send(request).await.unwrap_err();
        });
    }) else {
        return;
    };
    let (span, labels) = the_call(&run.received, "http.client.request.duration");
    assert!(
        labels.contains(&"error.type=\"connect\"".to_owned()),
        "{labels:?}"
    );
    let (_, message) = status_of(span);
    assert!(
        message.contains("Connect") && !message.contains("s3cret"),
        "{message}"
    );
    let url = support::value(&span.attributes, "url.full");
    assert_eq!(url.as_deref(), Some("\"http://127.0.0.1:9/a?sig=REDACTED\""));
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_reports_the_address_of_the_server() {
    let test = "outgoing::reqwest_reports_the_address_of_the_server";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        with_telemetry(async || {
            // Only needed if another crate of the build enables reqwest's `rustls-no-provider`.
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.get(format!("http://localhost:{}/", server().port()));
            HttpClientLayer::new().send(request).await.unwrap();
        });
    }) else {
        return;
    };
    assert_peer(&run.received, "http.client.request.duration", "127.0.0.1", None);
}
