//! Task events, as Celery's monitors and Flower see them.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

use celeriac::{Event, EventDetails, Signature, Status};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    Fixture,
    celery::Python,
    support::{PATIENCE, eventually, final_result},
    with_every_celery,
};

with_every_celery! {
    the_client_reads_the_events_of_both_languages
    celery_events_shows_every_task
    flower_shows_the_worker_and_its_tasks_and_revokes_a_task
}

async fn the_client_reads_the_events_of_both_languages(python: Python) {
    let fixture = Fixture::start_with(|worker| worker.events(true).build()).await;
    let url = fixture.server.url();
    let other = python.worker(&url, &["--queues", "python", "-E"], &[]).await;
    let mut events = fixture.control().events().await.unwrap();
    let add = Signature::new("add").arg(2).arg(3);
    let sent = [
        (fixture.client.send(add.clone()).await.unwrap(), "celery@test"),
        (
            fixture.client.send(add.queue("python")).await.unwrap(),
            other.name.as_str(),
        ),
    ];
    let mut missing = vec![];
    for (id, node) in &sent {
        missing
            .extend(["received", "started", "succeeded", "heartbeat"].map(|kind| (kind, *node, id.clone())));
    }
    let all = async {
        while !missing.is_empty() {
            let event = events.next().await;
            let seen = match event.details() {
                EventDetails::WorkerHeartbeat(status) => {
                    assert!(status.sw_ident.is_some() && status.active.is_some(), "{event:?}");
                    ("heartbeat", None)
                }
                EventDetails::TaskReceived(task) => {
                    assert_eq!(
                        (task.name.as_deref(), task.args.as_deref()),
                        (Some("add"), Some("(2, 3)"))
                    );
                    ("received", Some(task.uuid))
                }
                EventDetails::TaskStarted { uuid, .. } => ("started", Some(uuid)),
                EventDetails::TaskSucceeded { uuid, result, .. } => {
                    assert_eq!(result.as_deref(), Some("5"));
                    ("succeeded", Some(uuid))
                }
                other => panic!("{other:?}"),
            };
            missing.retain(|(kind, node, id)| {
                (*kind, *node) != (seen.0, event.hostname.as_str())
                    || seen.1.as_ref().is_some_and(|seen| seen != id)
            });
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(events.missed(), 0);
    other.stop().await;
    fixture.stop().await;
}

async fn celery_events_shows_every_task(python: Python) {
    let fixture = Fixture::start_with(|worker| worker.events(true).build()).await;
    let url = fixture.server.url();
    let mut monitor = python
        .command(&url, &["-m", "celery", "-b", &url, "events", "--dump"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let mut next = async |wanted: &str| {
        let find = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the monitor is running");
                if line.contains(wanted) {
                    return line;
                }
            }
        };
        tokio::time::timeout(PATIENCE, find)
            .await
            .unwrap_or_else(|_| panic!("no line with {wanted}"))
    };
    // The monitor is subscribed once it shows a heartbeat.
    next("heartbeat").await;
    let id = fixture
        .client
        .send(Signature::new("add").arg(2).arg(3))
        .await
        .unwrap();
    let received = next("task received").await;
    assert!(
        received.contains(id.as_str()) && received.contains("add") && received.contains("(2, 3)"),
        "{received}"
    );
    assert!(next("task started").await.contains(id.as_str()));
    let succeeded = next("task succeeded").await;
    assert!(
        succeeded.contains(id.as_str()) && succeeded.contains("result=5"),
        "{succeeded}"
    );
    fixture.client.send(Signature::new("broken")).await.unwrap();
    let failed = next("task failed").await;
    assert!(failed.contains("OperationalError('permanent')"), "{failed}");
    monitor.kill().await.unwrap();
    fixture.stop().await;
}

async fn flower_shows_the_worker_and_its_tasks_and_revokes_a_task(python: Python) {
    let fixture = Fixture::start().await;
    let url = fixture.server.url();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("--port={port}");
    let mut flower = python
        .command(
            &url,
            &[
                "-m",
                "celery",
                "-b",
                &url,
                "flower",
                "--address=127.0.0.1",
                &listen,
            ],
        )
        .env("FLOWER_UNAUTHENTICATED_API", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let workers = eventually("Flower shows the worker", async || {
        let workers = http(port, "GET", "/api/workers?refresh=1").await?;
        workers["celery@test"]["stats"].is_object().then_some(workers)
    })
    .await;
    let seen = &workers["celery@test"];
    assert_eq!(seen["stats"]["pool"]["max-concurrency"], 2);
    assert_eq!(seen["active_queues"][0]["name"], "celery");
    assert!(
        seen["registered"].as_array().unwrap().contains(&json!("add")),
        "{seen}"
    );
    // Flower enables events when it starts.
    eventually("events are enabled", async || {
        let reply = fixture.query("enable_events", json!({})).await;
        (reply["ok"] == "task events already enabled").then_some(())
    })
    .await;
    let done = fixture
        .client
        .send(Signature::new("add").arg(2).arg(3))
        .await
        .unwrap();
    let running = fixture.client.send(Signature::new("sleeps")).await.unwrap();
    let tasks = eventually("Flower shows the tasks", async || {
        let tasks = http(port, "GET", "/api/tasks").await?;
        (tasks[done.as_str()]["state"] == "SUCCESS" && tasks[running.as_str()]["state"] == "STARTED")
            .then_some(tasks)
    })
    .await;
    let task = &tasks[done.as_str()];
    assert_eq!(
        (&task["name"], &task["args"], &task["result"]),
        (&json!("add"), &json!("(2, 3)"), &json!("5"))
    );
    assert_eq!(task["worker"], "celery@test");
    let revoke = format!("/api/task/revoke/{running}?terminate=true");
    http(port, "POST", &revoke).await.expect("Flower revokes");
    assert_eq!(
        final_result(&fixture.client, &running).await.status,
        Status::Revoked
    );
    eventually("Flower shows the task as revoked", async || {
        let tasks = http(port, "GET", "/api/tasks").await?;
        (tasks[running.as_str()]["state"] == "REVOKED").then_some(())
    })
    .await;
    flower.kill().await.unwrap();
    fixture.stop().await;
}

/// Returns the JSON body of Flower's response, or `None` if Flower does not respond yet.
async fn http(port: u16, method: &'static str, path: &str) -> Option<Value> {
    let request = format!("{method} {path} HTTP/1.0\r\nHost: flower\r\nContent-Length: 0\r\n\r\n");
    let response = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        connection.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        connection.read_to_string(&mut response).ok()?;
        Some(response)
    });
    let response = response.await.unwrap()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let ok = head.lines().next()?.contains(" 200 ");
    ok.then(|| serde_json::from_str(body).ok()).flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_of_a_task_has_its_event() {
    let fixture = Fixture::start_with(|worker| worker.events(true).build()).await;
    let mut events = fixture.broker.listen("celeryev", "task.*").await.unwrap();
    let mut sent = Vec::new();
    for signature in [
        Signature::new("add").arg(1).arg(1),
        Signature::new("flaky").arg(1),
        Signature::new("broken"),
        Signature::new("none.such"),
        Signature::new("add")
            .arg(1)
            .arg(1)
            .expires("2020-01-01T00:00:00Z".parse().unwrap()),
    ] {
        sent.push(fixture.client.send(signature).await.unwrap());
    }
    let mut seen: Vec<Event> = Vec::new();
    let all = async {
        // Three events for a task that runs once, six for a task that is retried, two for a task that never
        // runs.
        while seen.len() < 3 + 6 + 3 + 2 + 2 {
            seen.extend(Event::decode(
                &events.next().await.expect("the connection is open"),
            ));
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
    let kinds = |id: &str| -> Vec<&str> {
        let of_task = seen.iter().filter(|event| event.fields["uuid"] == id);
        of_task.map(|event| event.kind.as_str()).collect()
    };
    assert_eq!(
        kinds(&sent[0]),
        ["task-received", "task-started", "task-succeeded"]
    );
    assert_eq!(
        kinds(&sent[1]),
        [
            "task-received",
            "task-started",
            "task-retried",
            "task-received",
            "task-started",
            "task-succeeded"
        ]
    );
    assert_eq!(kinds(&sent[2]), ["task-received", "task-started", "task-failed"]);
    assert_eq!(kinds(&sent[3]), ["task-received", "task-failed"]);
    assert_eq!(kinds(&sent[4]), ["task-received", "task-revoked"]);
    let find = |id: &str, kind: &str| {
        let event = seen
            .iter()
            .find(|event| event.fields["uuid"] == id && event.kind == kind);
        event.unwrap().fields.clone()
    };
    assert_eq!(find(&sent[4], "task-revoked")["expired"], true);
    let failed = find(&sent[2], "task-failed");
    assert_eq!(failed["exception"], "OperationalError('permanent')");
    assert!(
        failed["traceback"].as_str().unwrap().starts_with("Traceback"),
        "{failed:?}"
    );
    let succeeded = find(&sent[0], "task-succeeded");
    assert_eq!(succeeded["result"], "2");
    assert!((0.0..30.0).contains(&succeeded["runtime"].as_f64().unwrap()));
    fixture.stop().await;
}
