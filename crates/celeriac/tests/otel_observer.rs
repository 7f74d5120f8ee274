//! Spans and metrics of the observer without a broker: sends that fail or are dropped, and more tasks and
//! queues than the cache holds. Each scenario runs in a child process, because exporters are global to a
//! process; the child exports to standard output.

#![cfg(feature = "telemetry")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{process::Command, time::Duration};

use celeriac::{BrokerError, Exception, Observer, SendInfo, TaskInfo, TaskOutcome, otel::OtelObserver};
use serde_json::{Map, Value};

const CHILD: &str = "CELERIAC_TEST_CHILD";

/// Number of tasks, more than the cache holds.
const TASKS: usize = 700;

/// Number of queues, more than the cache holds.
const QUEUES: usize = 100;

/// Runs `scenario` in a child process.
///
/// In the test process: runs the test `test` again in a child, and returns the exported lines. In the child:
/// runs `scenario` and returns `None`.
fn exported(test: &str, scenario: fn(&OtelObserver)) -> Option<Vec<Value>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the parent process sets this variable for the child"
    )]
    if std::env::var(CHILD).is_ok() {
        let telemetry = telemetry::Telemetry::builder(telemetry::Service::new("celeriac-test", "0"));
        let telemetry = telemetry.python_names().init().unwrap();
        scenario(&OtelObserver::new("celery@test"));
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("OTEL_TRACES_EXPORTER", "console")
        .env("OTEL_METRICS_EXPORTER", "console")
        .env("OTEL_LOGS_EXPORTER", "none")
        .env_remove("OTEL_SDK_DISABLED")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let json = |line: &str| serde_json::from_str(line.get(line.find('{')?..)?).ok();
    Some(text.lines().filter_map(json).collect())
}

fn send<'a>(task: &'a str, queue: &'a str) -> SendInfo<'a> {
    SendInfo::new(task, "task-1", queue)
}

fn run<'a>(task: &'a str, queue: &'a str) -> TaskInfo<'a> {
    let mut info = TaskInfo::new(task, "task-1", queue);
    info.hostname = "celery@test";
    info
}

/// Returns the attributes of each point of a metric with its value, or with its count for a histogram.
fn points(lines: &[Value], name: &str) -> Vec<(Map<String, Value>, f64)> {
    let metric = lines.iter().rev().find(|line| line["metric"] == name);
    let points = metric.unwrap_or_else(|| panic!("no {name}"))["points"]
        .as_array()
        .unwrap();
    let value = |point: &Value| point["count"].as_f64().or_else(|| point["value"].as_f64());
    points
        .iter()
        .map(|point| {
            (
                point["attributes"].as_object().unwrap().clone(),
                value(point).unwrap(),
            )
        })
        .collect()
}

fn failures(observer: &OtelObserver) {
    let mut headers = Map::new();
    let error = BrokerError::Unavailable {
        cause: "no connection for alice@example.com".to_owned(),
    };
    observer
        .send(&send("notify", "celery"), &mut headers)
        .finish(Err(&error));
    assert!(headers.contains_key("traceparent"), "{headers:?}");
    drop(observer.send(&send("dropped", "celery"), &mut Map::new()));
    let retry = TaskOutcome::Retry {
        cause: Exception::new("SmtpError", "no mail for alice@example.com").module("smtp"),
        countdown: Duration::from_secs(1),
    };
    observer.run(&run("notify", "celery"), &headers).finish(&retry);
}

#[test]
fn failed_and_dropped_sends_are_recorded() {
    let test = "failed_and_dropped_sends_are_recorded";
    let Some(lines) = exported(test, failures) else {
        return;
    };
    let span = |name: &str, task: &str| {
        let matches = |line: &&Value| line["span"] == name && line["attributes"]["celery.task_name"] == task;
        lines.iter().find(matches).unwrap()
    };
    let failed = span("celery.send_task", "notify");
    assert_eq!(
        failed["error"],
        "the broker is unavailable: no connection for al***@example.com"
    );
    assert_eq!(failed["events"][0]["name"], "exception");
    let dropped = span("celery.send_task", "dropped");
    assert_eq!(dropped["error"], Value::Null);
    assert_eq!(dropped["attributes"]["error.type"], "cancelled");
    let run = span("celery.run", "notify");
    assert_eq!(run["parent_span_id"], failed["span_id"]);
    assert_eq!(run["attributes"]["celery.state"], "RETRY");
    assert_eq!(
        run["events"][0]["attributes"]["exception.message"],
        "no mail for al***@example.com"
    );
    let mut errors: Vec<_> = points(&lines, "messaging.client.sent.messages")
        .into_iter()
        .map(|(attributes, count)| (attributes["error.type"].clone(), count))
        .collect();
    errors.sort_by_key(|(error, _)| error.to_string());
    assert_eq!(
        errors,
        [
            ("cancelled".into(), 1.0),
            (failed["attributes"]["error.type"].clone(), 1.0)
        ]
    );
    assert_eq!(points(&lines, "celery_tasks_total")[0].0["status"], "retry");
}

fn many(observer: &OtelObserver) {
    // The second round uses the series that the first round cached.
    for number in (0..TASKS).chain(0..TASKS) {
        let (task, queue) = (format!("task-{number}"), format!("queue-{}", number % QUEUES));
        let mut headers = Map::new();
        observer.send(&send(&task, &queue), &mut headers).finish(Ok(()));
        observer
            .run(&run(&task, &queue), &headers)
            .finish(&TaskOutcome::Success(Value::Null));
    }
}

#[test]
fn tasks_and_queues_beyond_the_cache_limits_are_recorded() {
    let test = "tasks_and_queues_beyond_the_cache_limits_are_recorded";
    let Some(lines) = exported(test, many) else { return };
    for (name, count, value) in [
        ("celery_tasks_total", TASKS, 2.0),
        ("celery_task_duration_seconds", TASKS, 2.0),
        ("messaging.client.sent.messages", QUEUES, 14.0),
        ("messaging.client.consumed.messages", QUEUES, 14.0),
        ("messaging.process.duration", QUEUES, 14.0),
    ] {
        let values: Vec<f64> = points(&lines, name).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, vec![value; count], "{name}");
    }
}
