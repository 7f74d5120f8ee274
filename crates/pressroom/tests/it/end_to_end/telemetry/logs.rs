//! Logs: every event is written once to standard output and exported once over OTLP, with its trace and its
//! location in the code.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    logs::v1::{LogRecord, SeverityNumber},
};
use serde_json::json;

use super::{APP, Is, WORKER, assert_attributes, request, span_of, trace_id};
use crate::{
    end_to_end::installation::{Installation, People, create},
    support::{
        eventually,
        otlp::{hex, value},
    },
};

fn body(log: &LogRecord) -> &str {
    match log.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("the body of a log record is {other:?}"),
    }
}

async fn log(installation: &Installation, service: &str, text: &str) -> LogRecord {
    eventually(text, async || {
        let logs = installation.otlp.all_logs();
        let found = logs
            .into_iter()
            .find(|(from, log)| from == service && body(log) == text);
        found.map(|(_, log)| log)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_record_names_its_trace_span_and_function() {
    let installation = Installation::new().await;
    let (_serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let credentials = json!({"email": "carol@example.com", "password": "password123", "name": "Carol"});
    let trace = trace_id(1);
    request(api, &trace, "POST /api/register", &[], Some(&credentials)).await;
    let span = span_of(&installation, &trace, "user.register").await;
    let registered = log(&installation, APP, "User registered: ca***@example.com").await;
    assert_eq!(hex(&registered.trace_id), trace);
    assert_eq!(hex(&registered.span_id), span.id());
    assert_eq!(registered.flags & 1, 1, "the span is sampled");
    assert_eq!(registered.severity_text, "INFO");
    assert_eq!(registered.severity_number(), SeverityNumber::Info);
    assert!(registered.time_unix_nano > 0);
    assert_attributes(
        "User registered",
        &registered.attributes,
        &[
            ("otelTraceID", Is::Text(&trace)),
            ("otelSpanID", Is::Text(&span.id())),
            (
                "code.file.path",
                Is::Text("crates/pressroom/src/accounts/service.rs"),
            ),
            (
                "code.function.name",
                Is::Text("pressroom::accounts::service::Accounts::register"),
            ),
            ("code.line.number", Is::AnyInteger),
            ("user.id", Is::Text("3")),
        ],
    );

    create(api, &people.alice, "Second", None).await;
    let _worker = installation.worker();
    let sent = log(&installation, WORKER, "Notifications sent").await;
    let trace = hex(&sent.trace_id);
    let job = span_of(&installation, &trace, "job.send_notification").await;
    assert_attributes(
        "Notifications sent",
        &sent.attributes,
        &[
            ("otelTraceID", Is::Text(&trace)),
            ("otelSpanID", Is::Text(&job.id())),
            (
                "code.file.path",
                Is::Text("crates/pressroom/src/tasks/notification.rs"),
            ),
            (
                "code.function.name",
                Is::Text("pressroom::tasks::notification::NotificationTask::notify"),
            ),
            ("code.line.number", Is::AnyInteger),
            ("article.id", Is::Integer(2)),
            ("notifications.sent", Is::Integer(1)),
            ("event.type", Is::Text("created")),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_one_otlp_record_and_one_line() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve().await;
    let people = People::new(api, &installation).await;
    let mut worker = installation.worker();
    create(api, &people.alice, "Second", None).await;
    installation.mails(1).await;
    assert!(worker.terminate().await.success(), "{}", worker.output());
    assert!(serve.terminate().await.success(), "{}", serve.output());

    for (service, output) in [(APP, serve.output()), (WORKER, worker.output())] {
        let mut lines: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in output.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let part = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            assert!(
                !part("timestamp").is_empty() && !part("level").is_empty(),
                "{line}"
            );
            *lines.entry((part("message"), part("span_id"))).or_default() += 1;
        }
        let mut records: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (from, log) in installation.otlp.all_logs() {
            if from == service {
                assert_is_complete(&log);
                *records
                    .entry((body(&log).to_owned(), hex(&log.span_id)))
                    .or_default() += 1;
            }
        }
        assert!(!records.is_empty(), "{service}");
        assert_eq!(records, lines, "{service}");
    }
}

/// Asserts the attributes that every log record has.
fn assert_is_complete(log: &LogRecord) {
    let text = body(log);
    assert!(log.time_unix_nano > 0, "{text}");
    assert_ne!(log.severity_number(), SeverityNumber::Unspecified, "{text}");
    assert_attributes(
        text,
        &log.attributes,
        &[
            ("code.file.path", Is::AnyText),
            ("code.line.number", Is::AnyInteger),
            ("code.function.name", Is::AnyText),
        ],
    );
    let function = value(&log.attributes, "code.function.name");
    let Some(Value::StringValue(function)) = function else {
        panic!("{text}: {function:?}");
    };
    assert!(
        function.contains("::") && !function.contains("{{"),
        "{text}: {function}"
    );
    if log.trace_id.is_empty() {
        assert_attributes(
            text,
            &log.attributes,
            &[("otelTraceID", Is::Absent), ("otelSpanID", Is::Absent)],
        );
    } else {
        let (trace, span) = (hex(&log.trace_id), hex(&log.span_id));
        let ids = [("otelTraceID", Is::Text(&trace)), ("otelSpanID", Is::Text(&span))];
        assert_attributes(text, &log.attributes, &ids);
    }
}
