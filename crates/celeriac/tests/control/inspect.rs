//! Methods that query the worker.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, Control, MemoryBroker, Signature};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Fixture,
    celery::Python,
    ok, query,
    support::{Journal, PATIENCE, Running, worker},
    with_every_celery,
};

with_every_celery! {
    celery_pings_the_worker_and_shows_its_status
    celery_shows_the_tasks_of_the_worker
    celery_shows_the_settings_of_the_worker
    python_and_rust_workers_reply_to_the_client
}

async fn celery_pings_the_worker_and_shows_its_status(python: Python) {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.celery(&python, &["inspect", "ping"]).await, ok("pong"));
    let url = fixture.server.url();
    let status = python.output(&url, &["-m", "celery", "-b", &url, "status"]).await;
    assert!(status.contains("celery@test: OK"), "{status}");
    assert!(status.contains("1 node online"), "{status}");
    fixture.stop().await;
}

async fn celery_shows_the_tasks_of_the_worker(python: Python) {
    let fixture = Fixture::start().await;
    for line in ["a", "b"] {
        fixture
            .client
            .send(Signature::new("gated").arg(line))
            .await
            .unwrap();
    }
    fixture.journal.until(2).await;
    let reserved = fixture
        .client
        .send(Signature::new("add").arg(1).kwarg("b", "x"))
        .await
        .unwrap();
    let later = Signature::new("add")
        .arg(1)
        .arg(2)
        .priority(4)
        .countdown(Duration::from_secs(3600));
    let scheduled = fixture.client.send(later).await.unwrap();
    crate::support::eventually("the worker has reserved all four tasks", async || {
        (fixture.broker.depth("celery").await.unwrap().unacked == 4).then_some(())
    })
    .await;

    let active = fixture.celery(&python, &["inspect", "active"]).await;
    let lines: Vec<&Value> = active
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["args"][0])
        .collect();
    assert_eq!(lines, ["a", "b"]);
    assert_eq!(active[0]["name"], "gated");
    assert_eq!(active[0]["type"], "gated");
    assert_eq!(active[0]["kwargs"], json!({}));
    assert_eq!(active[0]["hostname"], "celery@test");
    assert_eq!(active[0]["worker_pid"], std::process::id());
    assert!(active[0]["time_start"].as_f64().unwrap() > 1.7e9);
    assert_eq!(active[0]["acknowledged"], false);
    assert_eq!(
        active[0]["delivery_info"],
        json!({"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": false})
    );

    let waiting = fixture.celery(&python, &["inspect", "reserved"]).await;
    assert_eq!(waiting.as_array().unwrap().len(), 1);
    assert_eq!(waiting[0]["id"], reserved.as_str());
    assert_eq!(waiting[0]["kwargs"], json!({"b": "x"}));
    assert_eq!(waiting[0]["time_start"], Value::Null);
    assert_eq!(waiting[0]["worker_pid"], Value::Null);

    let later = fixture.celery(&python, &["inspect", "scheduled"]).await;
    assert_eq!(later.as_array().unwrap().len(), 1);
    assert!(later[0]["eta"].as_str().unwrap().ends_with("+00:00"));
    assert_eq!(later[0]["priority"], 6);
    assert_eq!(later[0]["request"]["id"], scheduled.as_str());
    assert_eq!(later[0]["request"]["delivery_info"]["priority"], 4);

    let running = active[0]["id"].as_str().unwrap();
    let query = ["inspect", "query_task", running, &reserved, "none-such"];
    let found = fixture.celery(&python, &query).await;
    assert_eq!(found[running][0], "active");
    assert_eq!(found[reserved.as_str()][0], "reserved");
    assert_eq!(found[reserved.as_str()][1]["name"], "add");
    assert_eq!(found.as_object().unwrap().len(), 2);

    let stats = fixture.celery(&python, &["inspect", "stats"]).await;
    assert_eq!(stats["total"], json!({"gated": 2}));
    // The shutdown returns the waiting tasks to the queue.
    fixture.stop().await;
}

async fn celery_shows_the_settings_of_the_worker(python: Python) {
    let fixture = Fixture::start().await;
    let stats = fixture.celery(&python, &["inspect", "stats"]).await;
    assert_eq!(stats["pid"], std::process::id());
    assert_eq!(stats["pool"]["max-concurrency"], 2);
    assert_eq!(stats["prefetch_count"], 8);
    assert_eq!(stats["broker"]["transport"], "redis");
    assert_eq!(stats["broker"]["port"], fixture.server.port);
    assert_eq!(stats["broker"]["virtual_host"], "0");
    assert!(stats["uptime"].is_u64());
    assert!(stats["clock"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(stats["rusage"]["maxrss"].as_u64().unwrap() > 1000);
    assert_eq!(stats["total"], json!({}));

    let clock = fixture.celery(&python, &["inspect", "clock"]).await;
    assert!(clock["clock"].as_u64().unwrap() > 0);
    let tasks = fixture.celery(&python, &["inspect", "registered"]).await;
    assert_eq!(
        tasks,
        json!([
            "add", "broken", "early", "flaky", "gated", "note", "optional", "panics", "pass", "sleeps",
            "total"
        ])
    );
    let described = [
        "inspect",
        "registered",
        "name",
        "max_retries",
        "acks_late",
        "no_such_field",
    ];
    let described = fixture.celery(&python, &described).await;
    assert_eq!(described[0], "add [name=add max_retries=3 acks_late=True]");
    assert_eq!(fixture.celery(&python, &["inspect", "revoked"]).await, json!([]));
    let queues = fixture.celery(&python, &["inspect", "active_queues"]).await;
    assert_eq!(queues.as_array().unwrap().len(), 1);
    assert_eq!(queues[0]["name"], "celery");
    assert_eq!(queues[0]["exchange"]["type"], "direct");
    assert_eq!(queues[0]["routing_key"], "celery");
    let conf = fixture.celery(&python, &["inspect", "conf"]).await;
    assert_eq!(
        conf["broker_url"],
        format!("redis://127.0.0.1:{}/0", fixture.server.port)
    );
    assert_eq!(conf["task_serializer"], "json");
    assert_eq!(conf["worker_concurrency"], 2);
    let names: Vec<&String> = conf.as_object().unwrap().keys().collect();
    let unknown = format!(
        "import json; from celery.app.defaults import SETTING_KEYS as known; \
         print(json.dumps(sorted(set({}) - known)))",
        json!(names)
    );
    let unknown = python.output(&fixture.server.url(), &["-c", &unknown]).await;
    // Celery's reply has this entry, although it is not a setting.
    assert_eq!(unknown.trim(), r#"["deprecated_settings"]"#);
    assert_eq!(conf["worker_prefetch_multiplier"], 4);
    assert_eq!(conf["task_queues"], json!(["celery"]));
    assert_eq!(conf["result_backend"], conf["broker_url"]);
    assert!(
        conf["imports"].as_array().unwrap().contains(&json!("add")),
        "{conf}"
    );
    let report = fixture.celery(&python, &["inspect", "report"]).await;
    assert!(
        report["ok"].as_str().unwrap().contains("software -> celeriac:"),
        "{report}"
    );
    fixture.stop().await;
}

async fn python_and_rust_workers_reply_to_the_client(python: Python) {
    let fixture = Fixture::start().await;
    let other = python.worker(&fixture.server.url(), &[], &[]).await;
    fixture.until_workers(2).await;
    let control = fixture.control();
    let mut nodes = control.ping().await.unwrap();
    nodes.sort();
    assert_eq!(nodes, ["celery@test", other.name.as_str()]);
    let only = control.clone().destination([other.name.clone()]);
    assert_eq!(only.ping().await.unwrap(), [other.name.as_str()]);
    let matching = control.clone().glob("python*").timeout(Duration::from_secs(2));
    assert_eq!(matching.ping().await.unwrap(), [other.name.as_str()]);
    assert_eq!(control.clone().limit(1).ping().await.unwrap().len(), 1);
    let stats = query(&only, "stats", json!({})).await;
    assert_eq!(stats[0].content["pid"], other.pid());
    let replies = query(&control, "nosuch", json!({})).await;
    assert_eq!(replies.len(), 2);
    for reply in replies {
        assert_eq!(reply.error(), Some("KeyError('nosuch')"), "{}", reply.node);
    }
    // Neither side leaves keys behind.
    other.stop().await;
    crate::support::eventually("no replies are left", async || {
        let left: Vec<String> = redis::cmd("KEYS")
            .arg("*reply.celery.pidbox")
            .query(&mut fixture.server.connection())
            .unwrap();
        left.is_empty().then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_long_arguments_are_not_shown() {
    let server = crate::server::Server::start_with(Some("s3cret"));
    let (broker, journal, gate): (Arc<dyn Broker>, _, _) = (
        Arc::new(server.broker()),
        Journal::default(),
        CancellationToken::new(),
    );
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    let client = Client::new(broker.clone());
    let long = "x".repeat(100_000);
    client.send(Signature::new("gated").arg(long)).await.unwrap();
    journal.until(1).await;
    let control = Control::new(broker).timeout(PATIENCE);
    for method in ["conf", "report", "stats"] {
        let replies = query(&control, method, json!({})).await;
        assert!(!replies[0].content.to_string().contains("s3cret"), "{replies:?}");
    }
    let active = query(&control, "active", json!({})).await;
    let args = active[0].content[0]["args"].as_str().unwrap();
    assert!(args.starts_with("('xxx") && args.ends_with("..."), "{args}");
    assert!(args.len() < 1100, "{}", args.len());
    gate.cancel();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_query_without_workers_returns_immediately() {
    let server = crate::server::Server::start();
    let control = Control::new(Arc::new(server.broker())).timeout(PATIENCE);
    let begin = std::time::Instant::now();
    assert!(control.ping().await.unwrap().is_empty());
    assert!(
        begin.elapsed() < PATIENCE / 2,
        "the query waited for the time-out"
    );
}

#[tokio::test]
async fn the_in_process_broker_supports_remote_control() {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(10));
    let gate = CancellationToken::new();
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &gate).build(),
        PATIENCE,
    );
    let control = Control::new(broker.clone()).timeout(PATIENCE);
    crate::support::eventually("the worker replies", async || {
        (control.ping().await.unwrap() == ["celery@test"]).then_some(())
    })
    .await;
    Client::new(broker)
        .send(Signature::new("add").arg(1).arg(2))
        .await
        .unwrap();
    let stats = query(&control, "stats", json!({})).await;
    assert_eq!(stats[0].content["total"], json!({"add": 1}));
    assert_eq!(stats[0].content["broker"]["transport"], "memory");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_acknowledgement_is_shown() {
    let fixture = Fixture::start().await;
    fixture
        .client
        .send(Signature::new("gated").arg("late"))
        .await
        .unwrap();
    fixture.journal.until(1).await;
    fixture
        .client
        .send(Signature::new("early").arg("early").arg(0))
        .await
        .unwrap();
    assert_eq!(fixture.journal.until(2).await, ["late", "early"]);
    let active = fixture.query("active", json!({})).await;
    let shown: Vec<(&Value, &Value)> = active
        .as_array()
        .unwrap()
        .iter()
        .map(|task| (&task["name"], &task["acknowledged"]))
        .collect();
    assert_eq!(
        shown,
        [(&json!("gated"), &json!(false)), (&json!("early"), &json!(true))]
    );
    fixture.stop().await;
}
