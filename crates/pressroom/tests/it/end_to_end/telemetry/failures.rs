//! Telemetry of failures: status Error with an exception for a 5xx response and failed work, status unset for
//! a 4xx response, and counters by cause.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use super::{
    APP, Is, TASK, WORKER, bearer,
    metrics::{counted, number},
    request, span, span_of, trace_id,
};
use crate::{
    end_to_end::installation::{Installation, People, create},
    support::{
        eventually,
        otlp::{hex, text},
        postgres::{Database, client},
        postgres_server::Server,
        raw,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_4xx_response_leaves_the_span_status_unset() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let token = bearer(&people.alice);
    let wrong = json!({"email": "alice@example.com", "password": "wrong-password"});
    let invalid = json!({"title": 7});
    let signed_in: &[(&str, &str)] = &[("Authorization", &token)];
    for (number, line, headers, body, status) in [
        (1, "POST /api/login", &[][..], Some(&wrong), 401),
        (2, "GET /api/articles/no-such-article", &[][..], None, 404),
        (3, "POST /api/articles/", signed_in, Some(&invalid), 422),
        (4, "POST /api/articles/", &[][..], Some(&invalid), 401),
        (5, "DELETE /api/articles/no-such-article", signed_in, None, 404),
        (6, "PATCH /api/login", &[][..], None, 405),
    ] {
        let response = request(api, &trace_id(number), line, headers, body).await;
        let actual = response.status;
        assert!(
            actual == status || (status == 422 && (400..500).contains(&actual)),
            "{line}: {actual}"
        );
        let server = span(&installation, line, |seen| {
            seen.trace() == trace_id(number) && seen.span.kind() == SpanKind::Server
        })
        .await;
        server.assert(
            APP,
            SpanKind::Server,
            &[("http.response.status_code", Is::Integer(i64::from(actual)))],
        );
        server.assert_unset();
    }
    let login = span_of(&installation, &trace_id(1), "user.login").await;
    login.assert(
        APP,
        SpanKind::Internal,
        &[("auth.status", Is::Text("failed")), ("user.id", Is::Absent)],
    );
    login.assert_unset();
    let failed = [
        ("status", Is::Text("failed")),
        ("reason", Is::Text("invalid_credentials")),
    ];
    counted(&installation, APP, "auth.login.attempts", &failed, 1).await;
    span_of(&installation, &trace_id(5), "article.delete")
        .await
        .assert_unset();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_database_is_an_error_with_an_exception() {
    let server = Server::start();
    let installation = Installation::on(server.url(), None).await;
    let (_serve, api) = installation.serve().await;
    raw::register(api, "alice@example.com").await;
    server.stop();
    let path = "/api/articles/some-slug";
    let response = request(api, &trace_id(1), &format!("GET {path}"), &[], None).await;
    assert_eq!(response.status, 503);
    let seen = span_of(&installation, &trace_id(1), "GET /api/articles/{slug}").await;
    seen.assert(
        APP,
        SpanKind::Server,
        &[("http.response.status_code", Is::Integer(503))],
    );
    seen.assert_error("database_unavailable");

    let credentials = json!({"email": "alice@example.com", "password": "password123"});
    let response = request(api, &trace_id(2), "POST /api/login", &[], Some(&credentials)).await;
    assert_eq!(response.status, 503);
    let login = span_of(&installation, &trace_id(2), "user.login").await;
    login.assert(APP, SpanKind::Internal, &[("auth.status", Is::Text("failed"))]);
    login.assert_error("database_unavailable");
    let unavailable = [
        ("status", Is::Text("failed")),
        ("reason", Is::Text("unavailable")),
    ];
    counted(&installation, APP, "auth.login.attempts", &unavailable, 1).await;
    let requests = [
        ("route", Is::Text("/api/articles/{slug}")),
        ("status", Is::Integer(503)),
    ];
    counted(&installation, APP, "http_requests_total", &requests, 1).await;
}

#[expect(clippy::disallowed_methods, reason = "the test renames a table directly")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_statement_reports_its_sqlstate() {
    let database = Database::empty().await;
    let url = database.url.clone();
    let installation = Installation::on(url.clone(), Some(database)).await;
    let (_serve, api) = installation.serve().await;
    client(&url)
        .await
        .batch_execute("ALTER TABLE articles RENAME TO elsewhere")
        .await
        .unwrap();
    let line = "GET /api/articles/some-slug";
    let response = request(api, &trace_id(1), line, &[], None).await;
    assert_eq!(response.status, 503);
    let server = span_of(&installation, &trace_id(1), "GET /api/articles/{slug}").await;
    server.assert_error("database_unavailable");
    let statement = span_of(&installation, &trace_id(1), "SELECT articles").await;
    statement
        .assert(
            APP,
            SpanKind::Client,
            &[("db.response.status_code", Is::Text("42P01"))],
        )
        .assert_below(&server);
    let error_type = text(&statement.span.attributes, "error.type").unwrap();
    statement.assert_error(&error_type);
    let measured = eventually("the duration with the error", async || {
        let metric = installation.otlp.metric(APP, "db.client.operation.duration")?;
        let shown = format!("{metric:?}");
        shown.contains("42P01").then_some(shown)
    })
    .await;
    assert!(measured.contains(&error_type));
}

/// Waits for the span `celery.run` of a task.
async fn run_of(installation: &Installation, id: &str) -> super::Seen {
    span(installation, id, |seen| {
        seen.span.name == "celery.run"
            && text(&seen.span.attributes, "messaging.message.id").as_deref() == Some(id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_revoked_and_retried_tasks_have_their_spans_and_counts() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let rejected = format!("http://{api}/api/nowhere");
    let _worker = installation.worker_with(&[
        ("WEBHOOK_URL", &rejected),
        ("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
    ]);
    // A task that fails, an expired task, and a task that is retried because its receiver rejects the
    // notification.
    let (failing, revoked) = (
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8222-222222222222",
    );
    installation.send_task(failing, &json!([1, "no such event"]), |_| {});
    installation.send_task(revoked, &json!([1, "created"]), |message| {
        message["headers"]["expires"] = "2020-01-01T00:00:00+00:00".into();
    });
    create(api, &people.alice, "Second", None).await;

    let run = run_of(&installation, failing).await;
    run.assert(
        WORKER,
        SpanKind::Consumer,
        &[("celery.state", Is::Text("FAILURE"))],
    );
    run.assert_error("ValueError");
    // The parent is the sender's span from the message.
    assert_eq!(run.trace(), "ba82e96eee5c73383c5a3143e20f9373");
    assert_eq!(hex(&run.span.parent_span_id), "5c45f19cca06da6a");

    let run = run_of(&installation, revoked).await;
    run.assert(
        WORKER,
        SpanKind::Consumer,
        &[("celery.state", Is::Text("REVOKED"))],
    );
    run.assert_unset();

    let retried = span(&installation, "a retry", |seen| {
        text(&seen.span.attributes, "celery.state").as_deref() == Some("RETRY")
    })
    .await;
    retried.assert(WORKER, SpanKind::Consumer, &[("celery.retries", Is::Integer(0))]);
    retried.assert_error("NotificationError");
    let job = span_of(&installation, &retried.trace(), "job.send_notification").await;
    job.assert_below(&retried).assert_error("undelivered");
    let call = span(&installation, "the webhook", |seen| {
        seen.span.name == "POST" && hex(&seen.span.parent_span_id) == job.id()
    })
    .await;
    let hidden = format!("http://{api}/REDACTED");
    let described = [
        ("http.request.method", Is::Text("POST")),
        ("http.response.status_code", Is::Integer(404)),
        ("server.port", Is::Integer(i64::from(api.port()))),
        ("url.full", Is::Text(&hidden)),
    ];
    call.assert(WORKER, SpanKind::Client, &described);
    let receiver = span(&installation, "the receiver of the webhook", |seen| {
        hex(&seen.span.parent_span_id) == call.id()
    });
    assert_eq!(receiver.await.span.kind(), SpanKind::Server);
    // The next attempt is another span in the same trace.
    let again = span(&installation, "the second attempt", |seen| {
        seen.span.name == "job.send_notification"
            && seen.trace() == retried.trace()
            && crate::support::otlp::integer(&seen.span.attributes, "job.attempt") == Some(2)
    })
    .await;
    assert_ne!(again.id(), job.id());

    for status in ["failure", "revoked"] {
        let having = [("name", Is::Text(TASK)), ("status", Is::Text(status))];
        counted(&installation, WORKER, "celery_tasks_total", &having, 1).await;
    }
    eventually("failed and successful deliveries to be counted", async || {
        let metric = installation.otlp.metric(WORKER, "notifications.deliveries")?;
        let failed = [
            ("notification.channel", Is::Text("webhook")),
            ("error.type", Is::Text("404")),
        ];
        let delivered = [("notification.channel", Is::Text("smtp"))];
        (number(&metric, &failed)? >= 2 && number(&metric, &delivered)? == 1).then_some(())
    })
    .await;
    eventually("retries to be counted", async || {
        let metric = installation.otlp.metric(WORKER, "celery_tasks_total")?;
        let having = [("name", Is::Text(TASK)), ("status", Is::Text("retry"))];
        (number(&metric, &having)? >= 1).then_some(())
    })
    .await;
}
