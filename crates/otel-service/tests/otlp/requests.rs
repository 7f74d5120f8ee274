//! Server spans, request metrics and the telemetry within a request, as the collector receives them.

use std::convert::Infallible;
use std::time::Duration;

use crate::support::{self, Behaviour, Problem, number, shown, value};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use otel_service::{
    ClientAddress, ClientUrl, Database, HttpLayer, KeyValue, ServerError, Span, Statement,
    set_server_attribute, statement_retried,
};
use tower::{Layer, Service, ServiceExt};

const FIND: Statement = Statement::new(
    "SELECT",
    "articles",
    "SELECT articles",
    "SELECT * FROM articles WHERE slug = $1",
);
const BROKEN: Statement = Statement::new("DELETE", "users", "DELETE users", "DELETE FROM users");
const INSERT: Statement = Statement::new("INSERT", "users", "INSERT users", "INSERT INTO users");

fn route(parts: &Parts) -> Option<&str> {
    let path = parts.uri.path();
    if path.starts_with("/api/articles/") {
        return Some("/api/articles/{slug}");
    }
    matches!(path, "/broken" | "/slow" | "/health" | "/panic" | "/unavailable").then_some(path)
}

async fn respond(request: Request<()>) -> Result<Response<String>, Infallible> {
    let database = Database::new(
        "postgresql",
        "pressroom".to_owned(),
        Some(("db.internal".to_owned(), 5432)),
    );
    let trace_id = otel_service::current_trace_id().unwrap();
    let mut response = Response::new(trace_id);
    match request.uri().path() {
        "/api/articles/a-b" => {
            set_server_attribute(KeyValue::new("user.id", "1"));
            let found = Span::internal("article.create")
                .attribute(KeyValue::new("article.slug", "a-b"))
                .run(async {
                    otel_service::set_attribute(KeyValue::new("user.id", "7"));
                    set_server_attribute(KeyValue::new("user.id", "7"));
                    let rows = database
                        .observe(&FIND, async {
                            // The connection was lost during the first attempt.
                            statement_retried(&Problem::Broken("lost".to_owned()));
                            Ok::<_, Problem>(vec![1, 2, 3])
                        })
                        .await?;
                    // An expected database error.
                    let rejected = database
                        .observe(&INSERT, async { Err::<(), _>(Problem::Rejected) })
                        .await;
                    assert!(rejected.is_err());
                    tracing::info!(rows = rows.len(), "mail to alice@example.com");
                    Ok::<_, Problem>(rows)
                })
                .await;
            assert_eq!(found.unwrap().len(), 3);
            *response.status_mut() = StatusCode::CREATED;
        }
        "/broken" => {
            let failed = Span::internal("user.register")
                .run(database.observe(&BROKEN, async {
                    tokio::task::yield_now().await;
                    Err::<(), _>(Problem::Broken("no bob@example.com".to_owned()))
                }))
                .await;
            assert!(failed.is_err());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.extensions_mut().insert(ServerError {
                error_type: "problem.broken".into(),
                message: "no bob@example.com".to_owned(),
            });
        }
        "/unavailable" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        "/slow" => std::future::pending().await,
        "/panic" => panic!("of the scenario"),
        "/health" => {
            let pinged = database.observe(&FIND, async { Ok::<_, Problem>(Some(1)) }).await;
            assert!(pinged.is_ok());
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

fn request(method: &str, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

fn traceresponse(head: &http::response::Parts) -> String {
    head.headers["traceresponse"].to_str().unwrap().to_owned()
}

fn scenario() {
    let telemetry = support::init().unwrap();
    support::block_on(async {
        let mut service = HttpLayer::new(route)
            .untraced_paths(|path| path == "/health")
            .layer(tower::service_fn(respond));

        let mut full = request(
            "POST",
            "/api/articles/a-b?page=2&token=verysecret&to=carol@example.com",
        );
        let headers = full.headers_mut();
        headers.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        );
        headers.insert("host", "blog.test:8443".parse().unwrap());
        headers.insert("user-agent", "curl/8".parse().unwrap());
        full.extensions_mut()
            .insert(ClientAddress("192.0.2.7:1234".parse().unwrap()));
        let (head, body) = support::read(service.ready().await.unwrap().call(full)).await;
        let given = traceresponse(&head);
        assert!(given.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(given.ends_with("-01"), "{given}");
        assert_eq!(body, "0af7651916cd43dd8448eb211c80319c");

        let (head, body) = support::read(service.call(request("GET", "/who/knows"))).await;
        assert_eq!(traceresponse(&head).split('-').nth(1), Some(body.as_str()));
        let (head, _) = support::read(service.call(request("GET", "/broken"))).await;
        assert_eq!(head.status, 500);
        support::read(service.call(request("BREW", "/pot"))).await;

        let (head, body) = support::read(service.call(request("GET", "/health"))).await;
        let given = traceresponse(&head);
        assert_eq!(given.split('-').nth(1), Some(body.as_str()));
        // Not sampled; the trace id is random.
        assert!(given.ends_with("-02"), "{given}");

        let (head, _) = support::read(service.call(request("GET", "/unavailable"))).await;
        assert_eq!(head.status, 503);

        let dropped = service.call(request("GET", "/slow"));
        tokio::time::timeout(Duration::from_millis(20), dropped)
            .await
            .unwrap_err();
        let panicking = service.call(request("GET", "/panic"));
        assert!(tokio::spawn(panicking).await.unwrap_err().is_panic());
        assert_eq!(otel_service::current_trace_id(), None);
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_request_has_a_server_span_child_spans_and_metrics() {
    let Some(run) = support::run(
        "requests::a_request_has_a_server_span_child_spans_and_metrics",
        Behaviour::Accepts,
        &[("OTEL_EXPORTER_OTLP_HEADERS", "x-api=a%20b")],
        scenario,
    ) else {
        return;
    };
    let received = run.received;
    let mut names = received.span_names();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "DELETE users",
            "GET",
            "GET /broken",
            "GET /panic",
            "GET /slow",
            "GET /unavailable",
            "HTTP",
            "INSERT users",
            "POST /api/articles/{slug}",
            "SELECT articles",
            "article.create",
            "user.register",
        ]
    );
    assert!(
        received.headers.iter().all(|headers| {
            headers["x-api"] == "a b" && headers["content-type"] == "application/x-protobuf"
        })
    );
    let resource = &received.resources[0].attributes;
    assert_eq!(
        value(resource, "service.name").as_deref(),
        Some("\"test-service\"")
    );
    assert_eq!(value(resource, "service.version").as_deref(), Some("\"9.8.7\""));
    assert!(value(resource, "process.pid").unwrap().parse::<u32>().is_ok());

    let server = received.span("POST /api/articles/{slug}");
    assert_eq!(server.kind(), SpanKind::Server);
    assert_eq!(support::hex(&server.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(support::hex(&server.parent_span_id), "b7ad6b7169203331");
    assert!(
        server
            .status
            .as_ref()
            .is_none_or(|status| status.code() == SpanStatus::Unset)
    );
    assert_eq!(
        shown(&server.attributes),
        [
            "client.address=\"192.0.2.7\"",
            "http.request.method=\"POST\"",
            "http.response.status_code=201",
            "http.route=\"/api/articles/{slug}\"",
            "network.protocol.version=\"1.1\"",
            "server.address=\"blog.test\"",
            "server.port=8443",
            "url.path=\"/api/articles/a-b\"",
            "url.query=\"page=2&token=REDACTED&to=ca***@example.com\"",
            "url.scheme=\"http\"",
            "user.id=\"7\"",
            "user_agent.original=\"curl/8\"",
        ]
    );

    let business = received.span("article.create");
    assert_eq!(business.kind(), SpanKind::Internal);
    assert_eq!(business.parent_span_id, server.span_id);
    assert_eq!(
        shown(&business.attributes),
        ["article.slug=\"a-b\"", "user.id=\"7\""]
    );

    let statement = received.span("SELECT articles");
    assert_eq!(statement.kind(), SpanKind::Client);
    assert_eq!(statement.trace_id, server.trace_id);
    assert_eq!(statement.parent_span_id, business.span_id);
    assert_eq!(
        shown(&statement.attributes),
        [
            "db.collection.name=\"articles\"",
            "db.namespace=\"pressroom\"",
            "db.operation.name=\"SELECT\"",
            "db.query.summary=\"SELECT articles\"",
            "db.query.text=\"SELECT * FROM articles WHERE slug = $1\"",
            "db.response.returned_rows=3",
            "db.system.name=\"postgresql\"",
            "server.address=\"db.internal\"",
            "server.port=5432",
        ]
    );
    assert_eq!(statement.events.len(), 1);
    assert_eq!(statement.events[0].name, "db.statement.retry");
    assert_eq!(
        shown(&statement.events[0].attributes),
        [
            "db.response.status_code=\"57014\"",
            "error.type=\"problem.broken\""
        ]
    );
    let rejected = received.span("INSERT users");
    assert!(
        rejected
            .status
            .as_ref()
            .is_none_or(|status| status.code() == SpanStatus::Unset)
    );
    assert!(rejected.events.is_empty());
    assert_eq!(
        value(&rejected.attributes, "db.response.status_code").as_deref(),
        Some("\"23505\"")
    );

    failures(&received);
    other_requests(&received);
    metrics(&received);

    let log = received.log("mail to al***@example.com");
    assert_eq!(log.trace_id, server.trace_id);
    assert_eq!(log.span_id, business.span_id);
}

fn failures(received: &support::Received) {
    for name in ["GET /broken", "user.register", "DELETE users"] {
        let span = received.span(name);
        let status = span.status.as_ref().unwrap();
        assert_eq!(status.code(), SpanStatus::Error, "{name}");
        assert_eq!(status.message, "no bo***@example.com", "{name}");
        assert_eq!(
            value(&span.attributes, "error.type").as_deref(),
            Some("\"problem.broken\"")
        );
        assert_eq!(span.events.len(), 1, "{name}");
        assert_eq!(span.events[0].name, "exception");
        assert_eq!(
            shown(&span.events[0].attributes),
            [
                "exception.message=\"no bo***@example.com\"",
                "exception.type=\"problem.broken\"",
            ]
        );
    }
    let unexplained = received.span("GET /unavailable");
    let status = unexplained.status.as_ref().unwrap();
    assert_eq!((status.code(), status.message.as_str()), (SpanStatus::Error, ""));
    assert_eq!(
        value(&unexplained.attributes, "error.type").as_deref(),
        Some("\"503\"")
    );
    assert!(unexplained.events.is_empty());

    let statement = received.span("DELETE users");
    assert_eq!(
        value(&statement.attributes, "db.response.status_code").as_deref(),
        Some("\"57014\"")
    );
}

fn other_requests(received: &support::Received) {
    let unknown = received.span("GET");
    assert_eq!(value(&unknown.attributes, "http.route"), None);
    assert_eq!(
        value(&unknown.attributes, "http.response.status_code").as_deref(),
        Some("404")
    );
    assert_eq!(value(&unknown.attributes, "error.type"), None);
    assert!(unknown.parent_span_id.is_empty());

    let brew = received.span("HTTP");
    assert_eq!(
        value(&brew.attributes, "http.request.method").as_deref(),
        Some("\"_OTHER\"")
    );
    assert_eq!(
        value(&brew.attributes, "http.request.method_original").as_deref(),
        Some("\"BREW\"")
    );

    let dropped = received.span("GET /slow");
    assert_eq!(value(&dropped.attributes, "http.response.status_code"), None);
    assert_eq!(
        value(&dropped.attributes, "error.type").as_deref(),
        Some("\"cancelled\"")
    );
    assert!(
        dropped
            .status
            .as_ref()
            .is_none_or(|status| status.code() == SpanStatus::Unset)
    );
    assert!(dropped.end_time_unix_nano > dropped.start_time_unix_nano);

    let panicked = received.span("GET /panic");
    let status = panicked.status.as_ref().unwrap();
    assert_eq!(status.code(), SpanStatus::Error);
    assert_eq!(
        value(&panicked.attributes, "error.type").as_deref(),
        Some("\"panic\"")
    );
}

fn metrics(received: &support::Received) {
    let mut totals: Vec<String> = received
        .numbers("http_requests_total")
        .iter()
        .map(|point| format!("{} {}", shown(&point.attributes).join(" "), number(point)))
        .collect();
    totals.sort();
    assert_eq!(
        totals,
        [
            "method=\"GET\" route=\"/broken\" status=500 1",
            "method=\"GET\" route=\"/health\" status=200 1",
            "method=\"GET\" route=\"/panic\" status=500 1",
            "method=\"GET\" route=\"/slow\" status=499 1",
            "method=\"GET\" route=\"/unavailable\" status=503 1",
            "method=\"GET\" route=\"unmatched\" status=404 1",
            "method=\"POST\" route=\"/api/articles/{slug}\" status=201 1",
            "method=\"_OTHER\" route=\"unmatched\" status=404 1",
        ]
    );
    let active = received.numbers("http.server.active_requests");
    assert!(!active.is_empty());
    assert!(active.iter().all(|point| number(point) == 0.0), "{active:?}");

    for name in ["http.server.request.duration", "http_request_duration_seconds"] {
        assert_eq!(received.metric(name).unit, "s");
        let points = received.histogram(name);
        assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), 8, "{name}");
        assert_eq!(points[0].explicit_bounds.len(), 14);
        assert_eq!(points[0].explicit_bounds[0].to_string(), "0.005");
    }
    let durations = received.histogram("http.server.request.duration");
    let mut attributes: Vec<String> = durations
        .iter()
        .map(|point| shown(&point.attributes).join(" "))
        .collect();
    attributes.sort();
    assert!(
        attributes.contains(
            &"error.type=\"problem.broken\" http.request.method=\"GET\" http.response.status_code=500 \
          http.route=\"/broken\" network.protocol.version=\"1.1\" url.scheme=\"http\""
                .to_owned()
        ),
        "{attributes:?}"
    );
    assert!(
        attributes.contains(
            &"error.type=\"cancelled\" http.request.method=\"GET\" http.route=\"/slow\" \
          network.protocol.version=\"1.1\" url.scheme=\"http\""
                .to_owned()
        ),
        "{attributes:?}"
    );

    let statements = received.histogram("db.client.operation.duration");
    assert_eq!(statements.iter().map(|point| point.count).sum::<u64>(), 4);
}

/// Returns the URL as a client used it; empty parts are unknown.
fn client_url(scheme: &str, host: &str, port: u16) -> ClientUrl {
    ClientUrl {
        scheme: scheme.parse().ok(),
        host: (!host.is_empty()).then(|| host.to_owned()),
        port: (port > 0).then_some(port),
    }
}

/// Returns the target and `Host` of requests, the URL as the client used it, and the expected scheme, host and port.
fn urls() -> Vec<(&'static str, &'static str, ClientUrl, &'static str)> {
    let long_host = "a".repeat(8_000);
    let inside = "internal:8000";
    vec![
        ("/", inside, ClientUrl::default(), "http internal 8000"),
        ("http://internal/", "", ClientUrl::default(), "http internal 80"),
        (
            "https://internal/",
            "",
            ClientUrl::default(),
            "https internal 443",
        ),
        (
            "/",
            inside,
            client_url("https", "blog.example", 0),
            "https blog.example 443",
        ),
        (
            "/",
            inside,
            client_url("http", "blog.example:81", 0),
            "http blog.example 81",
        ),
        (
            "/",
            inside,
            client_url("https", "blog.example:81", 82),
            "https blog.example 81",
        ),
        (
            "/",
            inside,
            client_url("https", "blog.example", 82),
            "https blog.example 82",
        ),
        (
            "/",
            "shop.example",
            client_url("https", "", 0),
            "https shop.example 443",
        ),
        (
            "/",
            "shop.example:1",
            client_url("https", "", 82),
            "https shop.example 82",
        ),
        (
            "https://shop.example/",
            "",
            client_url("http", "", 0),
            "http shop.example 80",
        ),
        (
            "/",
            inside,
            client_url("", "[2001:db8::7]:5000", 0),
            "http 2001:db8::7 5000",
        ),
        (
            "/",
            inside,
            client_url("gopher", "blog.example:99999", 0),
            "http internal 8000",
        ),
        (
            "/",
            inside,
            client_url("https", "me:s3cret@blog.example", 0),
            "https internal 8000",
        ),
        (
            "/",
            inside,
            client_url("https", &long_host, 0),
            "https internal 8000",
        ),
    ]
}

#[test]
fn the_url_is_that_of_the_client() {
    let test = "requests::the_url_is_that_of_the_client";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        for (index, (target, host, client, _)) in urls().into_iter().enumerate() {
            let service = HttpLayer::new(|_| None).layer(tower::service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
            let mut request = request("GET", target);
            request.headers_mut().insert("user-agent", index.into());
            if !host.is_empty() {
                request.headers_mut().insert("host", host.parse().unwrap());
            }
            request.extensions_mut().insert(client);
            support::block_on(service.oneshot(request)).unwrap();
        }
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    }) else {
        return;
    };
    let urls = urls();
    for (index, (.., expected)) in urls.iter().enumerate() {
        let agent = format!("\"{index}\"");
        let mut spans = run.received.spans.iter();
        let span = spans.find(|span| value(&span.attributes, "user_agent.original").as_ref() == Some(&agent));
        let attribute = |key| value(&span.unwrap().attributes, key).unwrap().replace('"', "");
        let seen = ["url.scheme", "server.address", "server.port"].map(attribute);
        assert_eq!(seen.join(" "), *expected, "{index}");
    }
    // The metrics have the same scheme.
    let is_https = |expected: &str| expected.starts_with("https");
    let https = urls.iter().filter(|(.., expected)| is_https(expected)).count();
    for point in run.received.histogram("http.server.request.duration") {
        let scheme = value(&point.attributes, "url.scheme").unwrap();
        let expected = if scheme == "\"https\"" {
            https
        } else {
            urls.len() - https
        };
        assert_eq!(point.count, expected as u64, "{scheme}");
    }
    let active = run.received.numbers("http.server.active_requests");
    assert_eq!(active.len(), 2);
}
