//! `serve` and `worker` with PostgreSQL and Redis, exporting to an OTLP receiver.

use std::process::Command;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::{Value, json};

use super::installation::{Installation, People, create};
use crate::support::{
    eventually,
    otlp::{Receiver, hex, integer, text},
    postgres_server::Server,
    raw,
};

const TASK: &str = "app.jobs.tasks.send_article_notification";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn named<'a>(trace: &'a [(String, Span)], name: &str) -> &'a (String, Span) {
    let mut found = trace.iter().filter(|(_, span)| span.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no span {name}"));
    assert!(found.next().is_none(), "two spans {name}");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_article_is_one_trace_from_the_request_to_the_mail() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;

    let degraded = raw::request(api, "GET", "/api/health", None, None).await;
    assert_eq!(degraded.json()["status"], "degraded");
    let credentials = json!({"email": "ALICE@example.com", "password": "password123"});
    assert_eq!(
        raw::request(api, "POST", "/api/login", None, Some(&credentials))
            .await
            .status,
        200
    );

    let parent = format!("00-{TRACE_ID}-{CALLER}-01");
    let created = create(api, &people.alice, "Second", Some(&parent)).await;
    assert!(created.header("traceresponse").unwrap().contains(TRACE_ID));
    let message = installation.waiting_message().await;
    assert_matches_celery(&message);

    let mut worker = installation.worker();
    installation.mails(1).await;
    let mail = &installation.mail.received()[0];
    assert_eq!(mail.recipient, "bob@example.com");
    assert!(mail.text.contains("Second"), "{}", mail.text);

    let trace = eventually("the last span", async || {
        let trace = installation.otlp.trace(TRACE_ID);
        let names = ["POST /api/articles/", "celery.run"];
        let complete = names
            .iter()
            .all(|name| trace.iter().any(|(_, span)| span.name == *name));
        complete.then_some(trace)
    })
    .await;
    assert_is_one_trace(&trace);
    assert_logs_are_correlated(&installation.otlp).await;
    for (service, metric) in [
        ("pressroom-app", "http_requests_total"),
        ("pressroom-app", "http_request_duration_seconds"),
        ("pressroom-app", "auth.login.attempts"),
        ("pressroom-app", "articles.created"),
        ("pressroom-worker", "celery_tasks_total"),
        ("pressroom-worker", "celery_task_duration_seconds"),
    ] {
        eventually(metric, async || {
            installation.otlp.has_metric(service, metric).then_some(())
        })
        .await;
    }
    eventually("the worker's response", async || {
        let health = raw::request(api, "GET", "/api/health", None, None).await.json();
        (health["status"] == "healthy").then_some(())
    })
    .await;

    // The same message is delivered again: the task runs, but no notification is sent twice.
    let id: Value = serde_json::from_str(&message).unwrap();
    let key = format!("celery-task-meta-{}", id["headers"]["id"].as_str().unwrap());
    eventually("the result", async || {
        let result = installation.redis.command(&["GET", &key])?;
        result.contains(r#""status": "success""#).then_some(())
    })
    .await;
    installation.redis.command(&["DEL", &key]).unwrap();
    installation
        .redis
        .command(&["LPUSH", "celery", &message])
        .unwrap();
    eventually("the second run's result", async || {
        let result = installation.redis.command(&["GET", &key])?;
        result.contains(r#""status": "success""#).then_some(())
    })
    .await;
    installation.mails(1).await;

    assert!(worker.terminate().await.success(), "{}", worker.output());
    assert!(serve.terminate().await.success(), "{}", serve.output());
    for address in ["alice@example.com", "bob@example.com", "ALICE@example.com"] {
        assert!(!installation.otlp.contains(address), "{address} left the process");
        let printed = serve.output() + &worker.output();
        assert!(!printed.contains(address), "{address} was printed");
    }
}

/// Asserts that a message has the keys and constant values of a message recorded from Celery.
fn assert_matches_celery(message: &str) {
    let message: Value = serde_json::from_str(message).unwrap();
    let recorded = include_str!("../../vectors/celery-message.json");
    let mut recorded: Value = serde_json::from_str(recorded).unwrap();
    let decoded = recorded.as_object_mut().unwrap().remove("_body_decoded").unwrap();

    let body = STANDARD.decode(message["body"].as_str().unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body[0][0], 2, "the second article");
    assert_eq!(body[0][1], decoded[0][1]);
    assert_eq!(body[1], decoded[1]);
    assert_eq!(body[2], decoded[2]);

    let differ = ["id", "root_id", "argsrepr", "origin", "traceparent"];
    let headers = message["headers"].as_object().unwrap();
    for (key, value) in recorded["headers"].as_object().unwrap() {
        let own = headers.get(key).unwrap_or_else(|| panic!("no header {key}"));
        assert!(
            differ.contains(&key.as_str()) || own == value,
            "header {key}: {own}"
        );
    }
    assert_eq!(headers["task"], TASK);
    assert_eq!(headers["argsrepr"], "(2, 'created')");
    assert!(headers["traceparent"].as_str().unwrap().contains(TRACE_ID));
    let differ = ["correlation_id", "reply_to", "delivery_tag"];
    for (key, value) in recorded["properties"].as_object().unwrap() {
        let own = &message["properties"][key];
        assert!(
            differ.contains(&key.as_str()) || own == value,
            "property {key}: {own}"
        );
    }
    assert_eq!(message["properties"]["correlation_id"], message["headers"]["id"]);
}

fn assert_is_one_trace(trace: &[(String, Span)]) {
    let chain = [
        ("POST /api/articles/", "pressroom-app", SpanKind::Server),
        ("article.create", "pressroom-app", SpanKind::Internal),
        ("celery.send_task", "pressroom-app", SpanKind::Producer),
        ("celery.run", "pressroom-worker", SpanKind::Consumer),
        ("job.send_notification", "pressroom-worker", SpanKind::Internal),
    ];
    let mut parent = CALLER.to_owned();
    for (name, service, kind) in chain {
        let (from, span) = named(trace, name);
        assert_eq!(from, service, "{name}");
        assert_eq!(span.kind(), kind, "{name}");
        assert_eq!(hex(&span.parent_span_id), parent, "the parent of {name}");
        let status = span.status.clone().unwrap_or_default();
        assert_eq!(status.code(), StatusCode::Unset, "{name}");
        parent = hex(&span.span_id);
    }
    let (_, request) = named(trace, "POST /api/articles/");
    assert_eq!(
        text(&request.attributes, "http.route").as_deref(),
        Some("/api/articles/")
    );
    assert_eq!(
        integer(&request.attributes, "http.response.status_code"),
        Some(201)
    );
    assert_eq!(text(&request.attributes, "user.id").as_deref(), Some("1"));
    let (_, send) = named(trace, "celery.send_task");
    assert_eq!(
        text(&send.attributes, "messaging.system").as_deref(),
        Some("celery")
    );
    assert_eq!(
        text(&send.attributes, "messaging.destination.name").as_deref(),
        Some("celery")
    );
    assert_eq!(text(&send.attributes, "celery.task_name").as_deref(), Some(TASK));
    let (_, run) = named(trace, "celery.run");
    assert_eq!(text(&run.attributes, "celery.state").as_deref(), Some("SUCCESS"));
    let (_, job) = named(trace, "job.send_notification");
    assert_eq!(text(&job.attributes, "event.type").as_deref(), Some("created"));
    assert_eq!(integer(&job.attributes, "article.id"), Some(2));

    for (service, system) in [
        ("pressroom-app", "postgresql"),
        ("pressroom-worker", "postgresql"),
        ("pressroom-app", "redis"),
    ] {
        let statement = trace.iter().find(|(from, span)| {
            from == service && text(&span.attributes, "db.system.name").as_deref() == Some(system)
        });
        let (_, statement) = statement.unwrap_or_else(|| panic!("no {system} span from {service}"));
        assert_eq!(statement.kind(), SpanKind::Client);
    }
    let insert = trace
        .iter()
        .filter_map(|(_, span)| text(&span.attributes, "db.query.text"))
        .find(|text| text.contains("INSERT INTO articles"));
    let insert = insert.expect("the article's insert");
    assert!(insert.contains("$1") && !insert.contains("Second"), "{insert}");
}

async fn assert_logs_are_correlated(otlp: &Receiver) {
    let logs = eventually("the logs of both processes", async || {
        let logs = otlp.logs(TRACE_ID);
        let from = |service| logs.iter().any(|(from, _)| from == service);
        (from("pressroom-app") && from("pressroom-worker")).then_some(logs)
    })
    .await;
    for (_, log) in &logs {
        assert_eq!(text(&log.attributes, "otelTraceID").as_deref(), Some(TRACE_ID));
        assert_eq!(text(&log.attributes, "otelSpanID").unwrap(), hex(&log.span_id));
        assert!(text(&log.attributes, "code.file.path").is_some());
        assert!(integer(&log.attributes, "code.line.number").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_accepted_during_a_redis_outage_is_delivered_afterwards() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let _worker = installation.worker();

    installation.redis.stop();
    create(api, &people.alice, "During the outage", None).await;
    let health = raw::request(api, "GET", "/api/health", None, None).await;
    assert_eq!(health.status, 503);
    assert!(installation.mail.received().is_empty());

    installation.redis.resume();
    installation.mails(1).await;
    assert!(installation.mail.received()[0].text.contains("During the outage"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_logged_out_in_one_process_is_rejected_by_another() {
    let installation = Installation::new().await;
    let (_first, first) = installation.serve().await;
    let (_second, second) = installation.serve().await;
    let token = raw::register(first, "alice@example.com").await;
    assert_eq!(
        raw::request(second, "GET", "/api/user", Some(&token), None)
            .await
            .status,
        200
    );
    assert_eq!(
        raw::request(first, "POST", "/api/logout", Some(&token), None)
            .await
            .status,
        200
    );
    let rejected = raw::request(second, "GET", "/api/user", Some(&token), None).await;
    assert_eq!(rejected.status, 401);
    assert_eq!(rejected.json()["error"]["message"], "Invalid or expired token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_progress_is_completed_before_the_process_exits() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let body = json!({"email": "alice@example.com", "password": "password123", "name": "Alice"}).to_string();
    let head = format!(
        "POST /api/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(api).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    // The head has arrived once a request on a later connection has its response.
    raw::request(api, "GET", "/api/health/live", None, None).await;
    let pid = serve.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    eventually("the listener to close", async || {
        tokio::net::TcpStream::connect(api).await.is_err().then_some(())
    })
    .await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, body.as_bytes())
        .await
        .unwrap();
    let response = raw::read_response(&mut stream, false).await;
    assert_eq!(response.status, 201, "{}", serve.output());
    assert!(serve.wait_for_exit().await.success(), "{}", serve.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_whose_delivery_is_recorded_late_is_not_sent_again() {
    let server = Server::start();
    let installation = Installation::on(server.url(), None).await;
    installation.mail.hold();
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let worker = installation.worker();
    create(api, &people.alice, "Second", None).await;
    installation.mails(1).await;

    server.stop();
    installation.mail.acknowledge();
    eventually("recording the delivery to fail", async || {
        worker
            .output()
            .contains("cannot record a delivery; retrying")
            .then_some(())
    })
    .await;
    server.resume();
    eventually("the task to complete", async || {
        worker.output().contains("notifications.sent\":1").then_some(())
    })
    .await;
    installation.mails(1).await;
}
