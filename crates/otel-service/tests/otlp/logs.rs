//! Log events on standard output and at the collector.

use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use otel_service::Span;
use std::time::Duration;

use crate::support::{self, Behaviour, Problem, json_lines, shown, value};

fn scenario() {
    let telemetry = support::init().unwrap();
    let (line, error) = (line!() + 5, std::io::Error::other("bob@example.com is gone"));
    support::block_on(async {
        Span::internal("user.login")
            .run(async {
                tokio::task::yield_now().await;
                otel_service::warn!(
                    count = 3_u64,
                    ratio = 0.5,
                    flag = true,
                    name = "x\"y",
                    huge = u64::MAX,
                    error = &error as &dyn std::error::Error,
                    "hello {}",
                    "alice@example.com"
                );
                Ok::<_, Problem>(())
            })
            .await
            .unwrap();
    });
    tracing::info!(line, "outside");
    tracing::debug!("hidden");
    for target_is_of_an_exporter in [true, false] {
        if target_is_of_an_exporter {
            tracing::warn!(target: "hyper_util::client", "from a client");
            tracing::warn!(target: "opentelemetry_sdk", "from the sdk");
            tracing::warn!(target: "reqwest", "from a client");
        } else {
            tracing::warn!(target: "hyperbole", "from elsewhere");
        }
    }
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn an_event_is_written_once_to_each_output_with_its_trace() {
    let Some(run) = support::run(
        "logs::an_event_is_written_once_to_each_output_with_its_trace",
        Behaviour::Accepts,
        &[],
        scenario,
    ) else {
        return;
    };
    let received = &run.received;
    let span = received.span("user.login");
    let (trace_id, span_id) = (support::hex(&span.trace_id), support::hex(&span.span_id));

    let mut bodies: Vec<_> = received.logs.iter().filter_map(support::body_of).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["from elsewhere", "hello al***@example.com", "outside"]);

    let outside = received.log("outside");
    assert!(outside.trace_id.is_empty());
    assert_eq!(value(&outside.attributes, "otelTraceID"), None);
    // `tracing` does not record the function.
    assert_eq!(value(&outside.attributes, "code.function.name"), None);
    let expected_line = value(&outside.attributes, "line").unwrap();

    let log = received.log("hello al***@example.com");
    assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
    assert_eq!(log.severity_number(), SeverityNumber::Warn);
    assert_eq!(log.severity_text, "WARN");
    assert!(log.time_unix_nano > 0);
    assert_eq!(
        shown(&log.attributes),
        [
            "code.file.path=\"crates/otel-service/tests/otlp/logs.rs\"".to_owned(),
            "code.function.name=\"otlp::logs::scenario\"".to_owned(),
            format!("code.line.number={expected_line}"),
            "count=3".to_owned(),
            "exception.message=\"bo***@example.com is gone\"".to_owned(),
            "flag=true".to_owned(),
            "huge=\"18446744073709551615\"".to_owned(),
            "name=\"x\\\"y\"".to_owned(),
            format!("otelSpanID=\"{span_id}\""),
            format!("otelTraceID=\"{trace_id}\""),
            "ratio=0.5".to_owned(),
        ]
    );

    let lines = json_lines(&run.stdout);
    let line_of = |message: &str| {
        let found: Vec<_> = lines.iter().filter(|line| line["message"] == message).collect();
        assert_eq!(found.len(), 1, "{message}: {lines:?}");
        found[0]
    };
    let line = line_of("hello al***@example.com");
    assert_eq!(line["trace_id"], trace_id);
    assert_eq!(line["span_id"], span_id);
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        line["fields"],
        serde_json::json!({
            "count": 3, "ratio": 0.5, "flag": true, "name": "x\"y",
            "huge": "18446744073709551615", "exception.message": "bo***@example.com is gone",
        })
    );
    assert!(line_of("outside").get("trace_id").is_none());
    line_of("from the sdk");
    assert!(!run.stdout.contains("hidden"));
    assert!(!run.stdout.contains("alice@") && !run.stdout.contains("bob@"));
}

#[test]
fn rust_log_sets_log_levels_and_does_not_disable_spans() {
    let Some(run) = support::run(
        "logs::rust_log_sets_log_levels_and_does_not_disable_spans",
        Behaviour::Accepts,
        &[("RUST_LOG", "error"), ("PII_MASKING", "off")],
        || {
            let telemetry = support::init().unwrap();
            support::block_on(async {
                let failed = Span::internal("user.login")
                    .run(async {
                        tracing::warn!("quiet");
                        tracing::error!("bad for alice@example.com");
                        Err::<(), _>(Problem::Broken("of bob@example.com".to_owned()))
                    })
                    .await;
                assert!(failed.is_err());
            });
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    assert_eq!(run.received.logs.len(), 1);
    run.received.log("bad for alice@example.com");
    assert!(run.stdout.contains("bad for alice@example.com"));
    let span = run.received.span("user.login");
    assert_eq!(span.status.as_ref().unwrap().message, "of bob@example.com");
}

#[test]
fn events_of_the_log_crate_are_exported() {
    let line = line!() + 9;
    let Some(run) = support::run(
        "logs::events_of_the_log_crate_are_exported",
        Behaviour::Accepts,
        &[("RUST_LOG", "info,chatty=debug,quiet=off")],
        || {
            let telemetry = support::init().unwrap();
            support::block_on(async {
                let inside = async {
                    tracing_log::log::warn!("for {}", "alice@example.com");
                    Ok::<_, Problem>(())
                };
                Span::internal("user.login").run(inside).await.unwrap();
            });
            tracing_log::log::debug!("hidden");
            tracing_log::log::debug!(target: "chatty", "shown");
            tracing_log::log::error!(target: "quiet", "hidden");
            tracing_log::log::warn!(target: "hyper_util::client", "of an exporter");
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    let received = &run.received;
    let mut bodies: Vec<_> = received.logs.iter().filter_map(support::body_of).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["for al***@example.com", "shown"]);
    let span = received.span("user.login");
    let log = received.log("for al***@example.com");
    assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
    assert_eq!(log.event_name, "");
    assert_eq!(log.severity_number(), SeverityNumber::Warn);
    let (trace_id, span_id) = (support::hex(&span.trace_id), support::hex(&span.span_id));
    assert_eq!(
        shown(&log.attributes),
        [
            "code.file.path=\"crates/otel-service/tests/otlp/logs.rs\"".to_owned(),
            format!("code.line.number={line}"),
            format!("otelSpanID=\"{span_id}\""),
            format!("otelTraceID=\"{trace_id}\""),
        ]
    );
    let lines = json_lines(&run.stdout);
    let target = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.map(|line| line["target"].as_str().unwrap().to_owned())
    };
    assert_eq!(target("for al***@example.com").as_deref(), Some("otlp::logs"));
    assert_eq!(target("shown").as_deref(), Some("chatty"));
    assert!(target("of an exporter").is_some());
    assert!(!run.stdout.contains("hidden"));
}

#[test]
fn a_panic_is_one_event_with_its_location_and_without_values() {
    let line = line!() + 10;
    let Some(run) = support::run(
        "logs::a_panic_is_one_event_with_its_location_and_without_values",
        Behaviour::Accepts,
        &[],
        || {
            let telemetry = support::init().unwrap();
            let secret = std::hint::black_box("hunter2");
            support::block_on(async {
                let work = Span::internal("user.login").run::<(), Problem>(async move {
                    panic!("the secret is {secret}");
                });
                assert!(tokio::spawn(work).await.unwrap_err().is_panic());
            });
            assert!(std::panic::catch_unwind(|| panic!("a constant")).is_err());
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    let panics: Vec<_> = run
        .received
        .logs
        .iter()
        .filter(|log| support::body_of(log) == Some("panicked"))
        .collect();
    assert_eq!(panics.len(), 2, "{:?}", run.received.logs);
    let attributes = &panics[0].attributes;
    assert_eq!(value(attributes, "code.line.number").unwrap(), line.to_string());
    assert_eq!(
        value(attributes, "code.file.path").unwrap(),
        "\"crates/otel-service/tests/otlp/logs.rs\""
    );
    assert_eq!(value(attributes, "exception.type").unwrap(), "\"panic\"");
    assert!(!panics[0].trace_id.is_empty());
    let constant = value(&panics[1].attributes, "exception.message");
    assert_eq!(constant.unwrap(), "\"a constant\"");
    let lines: Vec<_> = json_lines(&run.stdout);
    let logged = lines.iter().filter(|line| line["message"] == "panicked");
    assert_eq!(logged.count(), 2);
    assert!(!run.stdout.contains("hunter2"));
}

#[test]
fn events_of_the_exporters_are_logged_but_not_exported() {
    let name = "logs::events_of_the_exporters_are_logged_but_not_exported";
    let environment = [("RUST_LOG", "trace"), ("OTEL_BLRP_SCHEDULE_DELAY", "10")];
    let Some(run) = support::run(name, Behaviour::Accepts, &environment, || {
        let telemetry = support::init().unwrap();
        // Causes several exports, during each of which the client logs.
        for number in 0..5 {
            tracing::info!(number, "mine");
            std::thread::sleep(Duration::from_millis(30));
        }
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    }) else {
        return;
    };
    let bodies: Vec<_> = run.received.logs.iter().filter_map(support::body_of).collect();
    assert_eq!(bodies, ["mine"; 5]);
    let lines = json_lines(&run.stdout);
    assert!(
        lines.len() > 5,
        "the exporters logged nothing, so the test has no effect: {lines:?}"
    );
}

#[test]
fn records_keep_what_they_are_given() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer of ann.secret@example.com")]
    struct Outer(#[source] std::io::Error);

    let Some(run) = support::run(
        "logs::records_keep_what_they_are_given",
        Behaviour::Accepts,
        &[],
        || {
            let telemetry = support::init().unwrap();
            let error = Outer(std::io::Error::other("root"));
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::error!(error, "chain");
            tracing::info!(log.file.name = "audit.log", log.iostream = "stdout", "log fields");
            let map = std::collections::BTreeMap::from([("depth", 3)]);
            tracing::info!(queues = ?["a", "bob.secret@example.com"], ?map, text = %"[1]", "collections");
            tracing::info_span!("library_call", scenario.array = ?[1, 2])
                .in_scope(|| tracing::info!("in a span"));
            let failed = tracing::info_span!("outer", error = tracing::field::Empty);
            failed.record("error", "refused by bob@example.com");
            failed.in_scope(|| tracing::info!("after an error"));
            drop(failed);
            let result = std::panic::catch_unwind(|| {
                let index = 7;
                panic!("index {index}");
            });
            assert!(result.is_err());
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    let (received, lines) = (&run.received, json_lines(&run.stdout));
    let line_of = |message: &str| lines.iter().find(|line| line["message"] == message).unwrap();
    let of = |body: &str, name: &str| value(&received.log(body).attributes, name).unwrap();
    let message = "outer of an***@example.com: root";
    assert_eq!(of("chain", "exception.message"), format!("{message:?}"));
    assert_eq!(line_of("chain")["fields"]["exception.message"], message);
    assert_eq!(of("log fields", "log.file.name"), "\"audit.log\"");
    assert_eq!(of("log fields", "log.iostream"), "\"stdout\"");
    assert_eq!(
        line_of("collections")["fields"],
        serde_json::json!({"queues": ["a", "bo***@example.com"], "map": {"depth": 3}, "text": "[1]"})
    );
    let exported = |name: &str| {
        let attributes = &received.log("collections").attributes;
        let attribute = attributes.iter().find(|attribute| attribute.key == name).unwrap();
        attribute.value.clone().unwrap().value.unwrap()
    };
    assert!(matches!(exported("queues"), any_value::Value::ArrayValue(list) if list.values.len() == 2));
    assert!(matches!(exported("map"), any_value::Value::KvlistValue(map) if map.values[0].key == "depth"));
    assert!(matches!(exported("text"), any_value::Value::StringValue(_)));
    assert_eq!(
        line_of("in a span")["fields"]["scenario.array"],
        serde_json::json!([1, 2])
    );
    let refused = "\"refused by bo***@example.com\"";
    assert_eq!(of("after an error", "exception.message"), refused);
    let failed = received.span("outer");
    assert_eq!(value(&failed.attributes, "exception.message").unwrap(), refused);
    let withheld = &line_of("panicked")["fields"]["exception.message"];
    assert!(withheld.as_str().unwrap().contains("withheld"), "{withheld}");
}

#[test]
fn messages_of_panics_are_logged_in_development() {
    let Some(run) = support::run(
        "logs::messages_of_panics_are_logged_in_development",
        Behaviour::Accepts,
        &[(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=development",
        )],
        || {
            let telemetry = support::init().unwrap();
            let result = std::panic::catch_unwind(|| {
                let index = 7;
                panic!("index {index} of ann.secret@example.com");
            });
            assert!(result.is_err());
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    let attributes = &run.received.log("panicked").attributes;
    assert_eq!(
        value(attributes, "exception.message").unwrap(),
        "\"index 7 of an***@example.com\""
    );
}
