//! Spans: names, kinds, parents, attributes with their types, and a status that stays unset without errors.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use super::{APP, Is, Seen, TASK, WORKER, bearer, request, span_of, trace_id};
use crate::{
    end_to_end::installation::{Installation, People},
    support::{
        eventually,
        otlp::{hex, text},
        raw,
    },
};

const CALLER: &str = "b7ad6b7169203331";

/// Asserts the server span of a request sent by [`request`].
fn assert_server(span: &Seen, method: &str, route: Option<&str>, path: &str, status: i64) {
    span.assert(
        APP,
        SpanKind::Server,
        &[
            ("http.request.method", Is::Text(method)),
            ("http.route", route.map_or(Is::Absent, Is::Text)),
            ("url.path", Is::Text(path)),
            ("url.scheme", Is::Text("http")),
            ("http.response.status_code", Is::Integer(status)),
            ("server.address", Is::Text("127.0.0.1")),
            ("server.port", Is::AnyInteger),
            ("client.address", Is::Text("127.0.0.1")),
            ("network.peer.address", Is::Text("127.0.0.1")),
            ("network.peer.port", Is::AnyInteger),
            ("user_agent.original", Is::Text("contract-test/1.0")),
            ("network.protocol.version", Is::Text("1.1")),
        ],
    )
    .assert_unset();
    assert_eq!(hex(&span.span.parent_span_id), CALLER, "{}", span.span.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_their_operations_are_spans_below_the_callers_span() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;

    let account = json!({"email": "alice@example.com", "password": "password123", "name": "Alice"});
    let credentials = json!({"email": "alice@example.com", "password": "password123"});
    let response = request(api, &trace_id(1), "POST /api/register", &[], Some(&account)).await;
    assert_eq!(response.status, 201);
    let token = bearer(response.json()["token"]["access_token"].as_str().unwrap());
    let signed_in: &[(&str, &str)] = &[("Authorization", &token)];
    let response = request(api, &trace_id(2), "POST /api/login", &[], Some(&credentials)).await;
    assert_eq!(response.status, 200);
    let article = json!({"title": "One", "body": "x"});
    let response = request(
        api,
        &trace_id(3),
        "POST /api/articles/",
        signed_in,
        Some(&article),
    )
    .await;
    assert_eq!(response.status, 201);
    let slug = response.json()["slug"].as_str().unwrap().to_owned();
    let (path, favorite) = (
        format!("/api/articles/{slug}"),
        format!("/api/articles/{slug}/favorite"),
    );
    let changed = json!({"title": "Two"});
    // Requests on an article: trace, method, path, route, body, name of the inner span, status.
    let one = "/api/articles/{slug}";
    let of_one = "/api/articles/{slug}/favorite";
    let steps = [
        (4, "PUT", &path, one, Some(&changed), "article.update", 200),
        (5, "POST", &favorite, of_one, None, "article.favorite", 200),
        (6, "DELETE", &favorite, of_one, None, "article.unfavorite", 200),
        (7, "DELETE", &path, one, None, "article.delete", 204),
    ];
    for (number, method, path, _, body, _, status) in &steps {
        let line = format!("{method} {path}");
        let response = request(api, &trace_id(*number), &line, signed_in, *body).await;
        assert_eq!(i64::from(response.status), *status, "{line}");
    }
    let response = request(api, &trace_id(8), "POST /api/logout", signed_in, None).await;
    assert_eq!(response.status, 200);

    for (number, path, name) in [
        (1, "/api/register", "user.register"),
        (2, "/api/login", "user.login"),
        (8, "/api/logout", "user.logout"),
    ] {
        let server = span_of(&installation, &trace_id(number), &format!("POST {path}")).await;
        let status = if number == 1 { 201 } else { 200 };
        assert_server(&server, "POST", Some(path), path, status);
        let inner = span_of(&installation, &trace_id(number), name).await;
        inner
            .assert(APP, SpanKind::Internal, &[("user.id", Is::Text("1"))])
            .assert_below(&server)
            .assert_unset();
        if name == "user.login" {
            inner.assert(APP, SpanKind::Internal, &[("auth.status", Is::Text("success"))]);
        }
    }

    let server = span_of(&installation, &trace_id(3), "POST /api/articles/").await;
    assert_server(&server, "POST", Some("/api/articles/"), "/api/articles/", 201);
    server.assert(APP, SpanKind::Server, &[("user.id", Is::Text("1"))]);
    span_of(&installation, &trace_id(3), "article.create")
        .await
        .assert(
            APP,
            SpanKind::Internal,
            &[("user.id", Is::Text("1")), ("article.slug", Is::Text(&slug))],
        )
        .assert_below(&server)
        .assert_unset();

    for (number, method, path, route, _, name, status) in steps {
        let trace = trace_id(number);
        let server = span_of(&installation, &trace, &format!("{method} {route}")).await;
        assert_server(&server, method, Some(route), path, status);
        server.assert(APP, SpanKind::Server, &[("user.id", Is::Text("1"))]);
        span_of(&installation, &trace, name)
            .await
            .assert(
                APP,
                SpanKind::Internal,
                &[("user.id", Is::Text("1")), ("article.slug", Is::Text(&slug))],
            )
            .assert_below(&server)
            .assert_unset();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_have_no_route_queries_are_redacted_and_health_checks_have_no_spans() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    for path in [
        "/api/health",
        "/api/health/live",
        "/api/health/ready",
        "/api/health?x=1",
    ] {
        request(api, &trace_id(1), &format!("GET {path}"), &[], None).await;
    }
    let response = request(api, &trace_id(2), "GET /api/nowhere/7", &[], None).await;
    assert_eq!(response.status, 404);
    let query = "page=1&token=hunter2&api_key=hunter3";
    let line = format!("GET /api/articles/?{query}");
    request(api, &trace_id(3), &line, &[], None).await;

    let unknown = span_of(&installation, &trace_id(2), "GET").await;
    assert_server(&unknown, "GET", None, "/api/nowhere/7", 404);
    let listed = span_of(&installation, &trace_id(3), "GET /api/articles/").await;
    listed.assert(
        APP,
        SpanKind::Server,
        &[("url.query", Is::Text("page=1&token=REDACTED&api_key=REDACTED"))],
    );
    // Spans of later requests have arrived, so spans of the health checks would have arrived too.
    let health = installation.otlp.trace(&trace_id(1));
    assert!(health.is_empty(), "{health:?}");
    assert!(
        installation
            .otlp
            .spans()
            .iter()
            .all(|(_, span)| !span.name.contains("health"))
    );
    for secret in ["hunter2", "hunter3"] {
        assert!(!installation.otlp.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_article_its_statements_and_its_task_are_one_trace() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let token = bearer(&people.alice);
    let article = json!({"title": "Second", "body": "x"});
    let trace = trace_id(1);
    let response = request(
        api,
        &trace,
        "POST /api/articles/",
        &[
            ("Authorization", &token),
            ("baggage", "mail=carla%40mail.example"),
        ],
        Some(&article),
    )
    .await;
    let slug = response.json()["slug"].as_str().unwrap().to_owned();
    let message: serde_json::Value = serde_json::from_str(&installation.waiting_message().await).unwrap();
    let id = message["headers"]["id"].as_str().unwrap();
    // Baggage of callers is not accepted.
    assert!(message["headers"]["baggage"].is_null(), "{message}");
    let _worker = installation.worker();
    installation.mails(1).await;

    let server = span_of(&installation, &trace, "POST /api/articles/").await;
    let create = span_of(&installation, &trace, "article.create").await;
    create.assert_below(&server);
    let send = span_of(&installation, &trace, "celery.send_task").await;
    let of_message = [
        ("messaging.system", Is::Text("celery")),
        ("messaging.destination.name", Is::Text("celery")),
        ("messaging.message.id", Is::Text(id)),
        ("celery.task_name", Is::Text(TASK)),
        ("messaging.operation.name", Is::AnyText),
    ];
    send.assert(APP, SpanKind::Producer, &of_message)
        .assert(
            APP,
            SpanKind::Producer,
            &[("messaging.operation.type", Is::Text("send"))],
        )
        .assert_below(&create)
        .assert_unset();
    assert_eq!(
        message["headers"]["traceparent"].as_str().unwrap(),
        format!("00-{trace}-{}-01", send.id())
    );
    let run = span_of(&installation, &trace, "celery.run").await;
    run.assert(WORKER, SpanKind::Consumer, &of_message)
        .assert(
            WORKER,
            SpanKind::Consumer,
            &[
                ("messaging.operation.type", Is::Text("process")),
                ("celery.state", Is::Text("SUCCESS")),
                ("celery.retries", Is::Integer(0)),
                ("celery.hostname", Is::AnyText),
            ],
        )
        .assert_below(&send)
        .assert_unset();
    let job = span_of(&installation, &trace, "job.send_notification").await;
    job.assert(
        WORKER,
        SpanKind::Internal,
        &[
            ("job.name", Is::Text("send_article_notification")),
            ("job.id", Is::Text(id)),
            ("job.attempt", Is::Integer(1)),
            ("article.id", Is::Integer(2)),
            ("article.slug", Is::Text(&slug)),
            ("event.type", Is::Text("created")),
        ],
    )
    .assert_below(&run)
    .assert_unset();
    span_of(&installation, &trace, "smtp.send")
        .await
        .assert(
            WORKER,
            SpanKind::Client,
            &[
                ("network.protocol.name", Is::Text("smtp")),
                ("server.address", Is::Text("127.0.0.1")),
                ("server.port", Is::AnyInteger),
            ],
        )
        .assert_below(&job)
        .assert_unset();

    let spans: Vec<Seen> = installation
        .otlp
        .trace(&trace)
        .into_iter()
        .map(|(service, span)| Seen { service, span })
        .collect();
    let ids: BTreeSet<String> = spans.iter().map(Seen::id).collect();
    assert_eq!(ids.len(), spans.len(), "a span was exported twice");
    for seen in &spans {
        let parent = hex(&seen.span.parent_span_id);
        assert!(
            parent == CALLER || ids.contains(&parent),
            "{} has no parent",
            seen.span.name
        );
        seen.assert_unset();
        assert!(seen.span.end_time_unix_nano >= seen.span.start_time_unix_nano);
    }
    assert_statements(
        &spans,
        "postgresql",
        APP,
        "INSERT articles",
        &["INSERT INTO articles"],
    );
    assert_statements(
        &spans,
        "postgresql",
        WORKER,
        "SELECT articles",
        &["SELECT", "FROM articles"],
    );
    assert_statements(&spans, "redis", APP, "EVALSHA", &["?"]);
}

/// Asserts the attributes of all statements that a service sent to a database, and that one of them has this
/// name and text.
fn assert_statements(spans: &[Seen], system: &str, service: &str, name: &str, texts: &[&str]) {
    let statements: Vec<_> = spans
        .iter()
        .filter(|seen| text(&seen.span.attributes, "db.system.name").as_deref() == Some(system))
        .filter(|seen| seen.service == service)
        .collect();
    for statement in &statements {
        let summary = statement.span.name.as_str();
        let operation = summary.split(' ').next().unwrap();
        statement.assert(
            service,
            SpanKind::Client,
            &[
                ("db.namespace", Is::AnyText),
                ("db.operation.name", Is::Text(operation)),
                ("db.query.summary", Is::Text(summary)),
                ("db.query.text", Is::AnyText),
                ("server.address", Is::Text("127.0.0.1")),
                ("server.port", Is::AnyInteger),
            ],
        );
        let sql = text(&statement.span.attributes, "db.query.text").unwrap();
        for given in ["Second", "alice", "bob", "2026"] {
            assert!(!sql.contains(given), "{summary} contains a value: {sql}");
        }
        // Statements on a table name the table.
        if system == "postgresql" && !["BEGIN", "COMMIT", "ROLLBACK"].contains(&operation) {
            let has_table = summary != "SELECT pg_advisory_xact_lock";
            let table = if has_table { Is::AnyText } else { Is::Absent };
            statement.assert(service, SpanKind::Client, &[("db.collection.name", table)]);
            if operation == "SELECT" {
                statement.assert(
                    service,
                    SpanKind::Client,
                    &[("db.response.returned_rows", Is::AnyInteger)],
                );
            }
        }
    }
    let found = statements.iter().any(|seen| {
        let sql = text(&seen.span.attributes, "db.query.text").unwrap();
        seen.span.name == name && texts.iter().all(|part| sql.contains(part))
    });
    let names: Vec<_> = statements.iter().map(|seen| &seen.span.name).collect();
    assert!(found, "{service} sent no {name} to {system}, but {names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_reports_its_number_of_rows() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    for title in ["Second", "Third"] {
        crate::end_to_end::installation::create(api, &people.alice, title, None).await;
    }
    let response = raw::request(api, "GET", "/api/articles/?per_page=2", None, None).await;
    assert_eq!(response.status, 200);
    request(api, &trace_id(1), "GET /api/articles/?per_page=2", &[], None).await;
    let server = span_of(&installation, &trace_id(1), "GET /api/articles/").await;
    let rows = eventually("the statement of the list", async || {
        let below = installation.otlp.trace(&trace_id(1));
        let mut counts: Vec<i64> = below
            .iter()
            .filter(|(_, span)| hex(&span.parent_span_id) == server.id())
            .filter_map(|(_, span)| {
                crate::support::otlp::integer(&span.attributes, "db.response.returned_rows")
            })
            .collect();
        counts.sort_unstable();
        (!counts.is_empty()).then_some(counts)
    })
    .await;
    assert!(rows.iter().all(|count| (1..=3).contains(count)), "{rows:?}");
}
