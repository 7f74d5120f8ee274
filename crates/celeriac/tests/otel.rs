//! Telemetry of `celeriac::otel` on a real server: spans with their parents, attributes and states, and
//! metrics, for tasks that are sent, run, retried and fail. The scenario runs in a separate process, because
//! telemetry is set up once per process, and exports to standard output.

#![cfg(feature = "telemetry")]
#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[expect(dead_code, reason = "shared with other tests")]
#[path = "support/redis.rs"]
mod server;
#[expect(dead_code, reason = "shared with other tests")]
mod support;

use std::{process::Command, sync::Arc, time::Duration};

use celeriac::{Client, Entry, RedisBroker, Schedule, Scheduler, Signature, Status, otel::OtelObserver};
use redis::cmd;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

const CHILD: &str = "CELERIAC_TEST_CHILD";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLERS_SPAN: &str = "b7ad6b7169203331";
/// Number of tasks sent in one batch; they finish at about the same time.
const TOGETHER: usize = 30;

fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = cmd("INFO")
        .arg("commandstats")
        .query(&mut server.connection())
        .unwrap();
    let prefix = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

async fn scenario() {
    let server = Server::start();
    let config = server.config();
    let observer = Arc::new(OtelObserver::new("celery@test").with_redis(&config));
    let broker = Arc::new(RedisBroker::new(config).unwrap().observer(observer.clone()));
    let client = Client::new(broker.clone()).observer(observer.clone());
    let built = worker(broker.clone(), &Journal::default(), &CancellationToken::new())
        .observer(observer.clone())
        .build();
    let running = Running::start(built, PATIENCE);
    let tasks = [
        (
            Signature::new("flaky").arg(1).header("traceparent", CALLER),
            Status::Success,
        ),
        (Signature::new("broken"), Status::Failure),
        (Signature::new("nobody.knows.it"), Status::Failure),
    ];
    for (task, status) in tasks {
        let id = client.send(task).await.unwrap();
        assert_eq!(final_result(&client, &id).await.status, status);
    }
    let together = (0..TOGETHER).map(|number| {
        Signature::new("add")
            .arg(number)
            .arg(1)
            .header("traceparent", CALLER)
    });
    for sent in client.send_batch(together.collect()).await {
        let id = sent.unwrap();
        assert_eq!(final_result(&client, &id).await.status, Status::Success);
    }
    let every = Schedule::every(Duration::from_millis(200)).unwrap();
    let entry = Entry::new("tick", every, |_| Signature::new("ticked").queue("periodic"));
    let scheduler = Scheduler::new(broker.clone())
        .observer(observer.clone())
        .entry(entry);
    let stop = CancellationToken::new();
    let scheduler = tokio::spawn(scheduler.run(stop.clone()));
    let ticked = || {
        cmd("LLEN")
            .arg("periodic")
            .query::<u64>(&mut server.connection())
            .unwrap()
    };
    eventually("a periodic task is sent", async || (ticked() > 0).then_some(())).await;
    stop.cancel();
    scheduler.await.unwrap();
    let sum = Signature::new("add").arg(1).arg(2);
    let chained = client
        .apply(sum.then(Signature::new("add").arg(3)))
        .await
        .unwrap();
    assert_eq!(chained.wait(PATIENCE).await.unwrap(), 6);
    cmd("LPUSH")
        .arg("celery")
        .arg("poison")
        .exec(&mut server.connection())
        .unwrap();
    let dead = || {
        cmd("LLEN")
            .arg("celeriac.dead")
            .query::<u64>(&mut server.connection())
            .unwrap()
    };
    eventually("the invalid message is buried", async || {
        (dead() == 1).then_some(())
    })
    .await;
    client
        .send(Signature::new("add").queue("unserved").priority(4))
        .await
        .unwrap();
    let looks = calls(&server, "llen");
    let _watch = observer.watch_queues(broker, vec!["unserved".to_owned()]);
    // The four lists of the queue, and the dead-letter list.
    eventually("the queue depths are read", async || {
        (calls(&server, "llen") == looks + 5).then_some(())
    })
    .await;
    client.result("none").await.unwrap();
    running.stop().await.unwrap();
}

/// Runs the scenario and returns the lines it exported.
fn exported() -> Vec<Value> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "spans_and_metrics_cover_a_task_from_send_to_settlement",
            "--exact",
            "--nocapture",
        ])
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
    text.lines().filter_map(json).collect()
}

fn attributes(span: &Value) -> String {
    let attributes = span["attributes"].as_object().unwrap();
    let mut shown: Vec<String> = attributes
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "messaging.message.id" | "network.peer.port" | "server.port"
            )
        })
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    shown.sort();
    shown.join(" ")
}

/// Returns the ids of the spans that a span links to, in order.
fn linked(span: &Value) -> Vec<&str> {
    let links = span["links"].as_array().into_iter().flatten();
    let mut ids: Vec<&str> = links.map(|link| link["span_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn ids_of<'a>(spans: &[&'a Value]) -> Vec<&'a str> {
    let mut ids: Vec<&str> = spans
        .iter()
        .map(|span| span["span_id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids
}

/// Returns the points of a metric as `attributes: value`, or `attributes: count` for a histogram.
fn points(lines: &[Value], name: &str) -> Vec<String> {
    let metric = lines.iter().rev().find(|line| line["metric"] == name);
    let points = metric.unwrap_or_else(|| panic!("no {name}"))["points"]
        .as_array()
        .unwrap();
    let mut points: Vec<String> = points
        .iter()
        .map(|point| {
            let value = if point["count"].is_u64() {
                &point["count"]
            } else {
                &point["value"]
            };
            format!("{}: {value}", attributes(point))
        })
        .collect();
    points.sort();
    points
}

#[test]
fn spans_and_metrics_cover_a_task_from_send_to_settlement() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment marks the child process"
    )]
    if std::env::var(CHILD).is_ok() {
        let telemetry = telemetry::Telemetry::builder(telemetry::Service::new("celeriac-test", "0"));
        let telemetry = telemetry.python_names().init().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(scenario());
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
        return;
    }
    let lines = exported();
    let spans = |name: &str, task: &str| -> Vec<&Value> {
        let task = |span: &&Value| task.is_empty() || span["attributes"]["celery.task_name"] == task;
        lines
            .iter()
            .filter(|line| line["span"] == name)
            .filter(task)
            .collect()
    };

    let sent = spans("celery.send_task", "flaky")[0];
    assert_eq!(sent["kind"], "producer");
    assert_eq!(sent["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(sent["parent_span_id"], "b7ad6b7169203331");
    assert_eq!(sent["error"], Value::Null);
    assert_eq!(
        attributes(sent),
        r#"celery.task_name="flaky" messaging.destination.name="celery" messaging.operation.name="send_task" messaging.operation.type="send" messaging.system="celery" server.address="127.0.0.1""#
    );
    let below = |parent: &Value, name: &str| -> Vec<&Value> {
        let child = |span: &&Value| span["parent_span_id"] == parent["span_id"];
        spans(name, "").into_iter().filter(child).collect()
    };
    let push = below(sent, "LPUSH")[0];
    assert_eq!(push["kind"], "client");
    assert_eq!(
        attributes(push),
        r#"db.namespace="0" db.operation.batch.size=2 db.operation.name="LPUSH" db.query.summary="LPUSH" db.query.text="LPUSH ? ?" db.system.name="redis" network.peer.address="127.0.0.1" server.address="127.0.0.1""#
    );

    let mut runs = below(sent, "celery.run");
    runs.sort_by_key(|run| run["attributes"]["celery.retries"].as_u64());
    assert_eq!(runs.len(), 2, "the retry belongs to the same trace");
    for (run, (retries, state, error)) in runs.iter().zip([
        (0, "RETRY", r#" error.type="OperationalError""#),
        (1, "SUCCESS", ""),
    ]) {
        assert_eq!(run["kind"], "consumer");
        assert_eq!(run["trace_id"], sent["trace_id"]);
        assert_eq!(
            run["attributes"]["messaging.message.id"],
            sent["attributes"]["messaging.message.id"]
        );
        assert_eq!(
            attributes(run),
            format!(
                r#"celery.hostname="celery@test" celery.retries={retries} celery.state="{state}" celery.task_name="flaky"{error} messaging.destination.name="celery" messaging.operation.name="run" messaging.operation.type="process" messaging.system="celery" server.address="127.0.0.1""#
            )
        );
        let (scripts, transactions) = (below(run, "EVALSHA").len(), below(run, "MULTI").len());
        let ended = if state == "RETRY" {
            "STARTED, and a message that replaces the delivery"
        } else {
            "STARTED, and an acknowledgement with the result"
        };
        assert_eq!((scripts, transactions), (2, 0), "{ended}");
    }
    let creation = sent["span_id"].as_str().unwrap();
    assert!(runs.iter().all(|run| linked(run) == [creation]));
    let (of_script, of_batch) = (spans("EVALSHA", "")[0], spans("MULTI", "")[0]);
    let script = of_script["attributes"]["db.stored_procedure.name"].as_str();
    assert_eq!(script.unwrap().len(), 40);
    assert!(
        of_batch["attributes"]["db.operation.batch.size"]
            .as_i64()
            .unwrap()
            > 1
    );
    assert_eq!(runs[1]["error"], Value::Null);
    assert_eq!(
        runs[0]["events"][0]["attributes"]["exception.type"],
        "OperationalError"
    );
    assert_eq!(
        runs[0]["events"][0]["attributes"]["exception.message"],
        "connection refused"
    );

    let broken = spans("celery.run", "broken")[0];
    assert_eq!(broken["attributes"]["celery.state"], "FAILURE");
    assert_eq!(broken["error"], "permanent");
    let unknown = spans("celery.run", "unregistered")[0];
    assert_eq!(unknown["attributes"]["celery.state"], "FAILURE");
    assert!(
        spans("celery.run", "nobody.knows.it").is_empty(),
        "unregistered task names must not become attributes"
    );
    let first = spans("celery.send_task", "add")
        .into_iter()
        .find(|sent| {
            sent["parent_span_id"].is_null() && sent["attributes"]["messaging.destination.name"] == "celery"
        })
        .unwrap();
    let first_run = below(first, "celery.run")[0];
    let next = below(first_run, "celery.send_task")[0];
    assert_eq!(next["trace_id"], first["trace_id"]);
    assert_eq!(
        below(next, "celery.run").len(),
        1,
        "the run of a chain's task sends the next task"
    );

    let together: Vec<&Value> = spans("celery.send_task", "add")
        .into_iter()
        .filter(|sent| sent["parent_span_id"] == CALLERS_SPAN)
        .collect();
    assert_eq!(together.len(), TOGETHER);
    let pushes: Vec<&Value> = spans("LPUSH", "")
        .into_iter()
        .filter(|push| !linked(push).is_empty())
        .collect();
    assert_eq!(pushes.len(), 1, "one command sends all messages");
    assert_eq!(linked(pushes[0]), ids_of(&together));
    assert!(ids_of(&together).contains(&pushes[0]["parent_span_id"].as_str().unwrap()));

    let ended = together.iter().flat_map(|sent| below(sent, "celery.run"));
    for run in ended {
        let id = run["span_id"].as_str().unwrap();
        let belongs = |end: &&Value| match linked(end).as_slice() {
            [] => end["parent_span_id"] == id,
            several => several.contains(&id),
        };
        let scripts = spans("EVALSHA", "").into_iter().filter(belongs).count();
        assert_eq!(scripts, 2, "STARTED, and each run is acknowledged by one command");
    }

    let periodic = spans("celery.send_task", "ticked");
    assert!(!periodic.is_empty(), "periodic tasks have their spans");
    for sent in periodic {
        assert_eq!(sent["error"], Value::Null);
        assert_eq!(below(sent, "EVALSHA").len(), 1);
    }

    let ids: Vec<&Value> = lines.iter().filter(|line| line["span"].is_string()).collect();
    let parent_is_known = |span: &&&Value| {
        let parent = &span["parent_span_id"];
        parent.is_null() || *parent == CALLERS_SPAN || ids.iter().any(|other| other["span_id"] == *parent)
    };
    assert_eq!(ids.iter().filter(parent_is_known).count(), ids.len());
    let roots = ids.iter().filter(|span| span["parent_span_id"].is_null());
    assert!(
        roots.clone().all(|root| root["span"] == "celery.send_task"),
        "polling and maintenance create no traces: {:?}",
        roots.map(|root| &root["span"]).collect::<Vec<_>>()
    );

    assert_eq!(
        points(&lines, "celery_tasks_total"),
        [
            &format!(r#"name="add" status="success": {}"#, TOGETHER + 2),
            r#"name="broken" status="failure": 1"#,
            r#"name="flaky" status="retry": 1"#,
            r#"name="flaky" status="success": 1"#,
            r#"name="unregistered" status="failure": 1"#,
        ]
    );
    let of_queue = |queue: &str| format!(r#"messaging.destination.name="{queue}""#);
    let sends =
        r#"messaging.operation.name="send_task" messaging.system="celery" server.address="127.0.0.1""#;
    let mut sent = points(&lines, "messaging.client.sent.messages");
    sent.retain(|point| !point.starts_with(&of_queue("periodic")));
    assert_eq!(
        sent,
        [
            format!("{} {sends}: {}", of_queue("celery"), TOGETHER + 5),
            format!("{} {sends}: 1", of_queue("unserved")),
        ]
    );
    assert_eq!(
        points(&lines, "messaging.client.consumed.messages"),
        [format!(
            r#"{} messaging.operation.name="run" messaging.system="celery" server.address="127.0.0.1": {}"#,
            of_queue("celery"),
            TOGETHER + 6
        )]
    );
    let processed = |error: &str, count: usize| {
        let queue = of_queue("celery");
        format!(
            r#"{error}{queue} messaging.operation.name="run" messaging.system="celery" server.address="127.0.0.1": {count}"#
        )
    };
    assert_eq!(
        points(&lines, "messaging.process.duration"),
        [
            processed(r#"error.type="NotRegistered" "#, 1),
            processed(r#"error.type="OperationalError" "#, 2),
            processed("", TOGETHER + 3),
        ]
    );
    assert_eq!(
        points(&lines, "celeriac.messages.buried"),
        [format!(r#"{} server.address="127.0.0.1": 1"#, of_queue("celery"))]
    );
    let unserved = |value: &str| {
        [format!(
            r#"{} server.address="127.0.0.1": {value}"#,
            of_queue("unserved")
        )]
    };
    assert_eq!(points(&lines, "celery.queue.waiting"), unserved("1.0"));
    assert_eq!(points(&lines, "celery.queue.unacknowledged"), unserved("0.0"));
    assert_eq!(
        points(&lines, "celery.dead_letters"),
        [r#"messaging.system="celery" server.address="127.0.0.1": 1.0"#]
    );
    let oldest = points(&lines, "celery.queue.oldest_age").remove(0);
    let age: f64 = oldest.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(age > 0.0 && age < 30.0, "{oldest}");
    let durations = lines
        .iter()
        .any(|line| line["metric"] == "db.client.operation.duration" && line["unit"] == json!("s"));
    assert!(durations, "commands are measured");
}
