//! The methods that change how a worker works.

use std::time::Duration;

use celeriac::{Client, Signature, Status};
use serde_json::{Value, json};

use crate::{
    Stage,
    celery::Python,
    ok,
    support::{eventually, final_result},
    with_every_celery,
};

with_every_celery! {
    celery_changes_how_the_worker_works
    celery_shuts_the_worker_down
}

async fn celery_changes_how_the_worker_works(python: Python) {
    let stage = Stage::set().await;
    let says = async |arguments: &[&str]| {
        let command: Vec<&str> = [&["control"], arguments].concat();
        stage.celery(&python, &command).await
    };
    let rate = says(&["rate_limit", "add", "10/s"]).await;
    assert_eq!(rate, ok("new rate limit set successfully"));
    let time = says(&["time_limit", "sleeps", "0.1", "0.2"]).await;
    assert_eq!(time, ok("time limits set successfully"));
    assert_eq!(says(&["add_consumer", "other"]).await, ok("add consumer other"));
    assert_eq!(says(&["pool_grow", "3"]).await, ok("pool will grow"));
    assert_eq!(says(&["pool_shrink", "1"]).await, ok("pool will shrink"));
    assert_eq!(says(&["enable_events"]).await, ok("task events enabled"));
    assert_eq!(says(&["enable_events"]).await, ok("task events already enabled"));
    assert_eq!(says(&["disable_events"]).await, ok("task events disabled"));
    assert_eq!(says(&["heartbeat"]).await, Value::Null);

    let stats = stage.ask("stats", json!({})).await;
    assert_eq!(
        (&stats["pool"]["max-concurrency"], &stats["prefetch_count"]),
        (&json!(4), &json!(16))
    );
    let tasks = stage.celery(&python, &["inspect", "registered"]).await;
    assert_eq!(tasks[0], "add [rate_limit=10/s]");
    let id = stage
        .client
        .send(Signature::new("sleeps").queue("other"))
        .await
        .unwrap();
    let meta = final_result(&stage.client, &id).await;
    assert_eq!(
        (meta.status, &meta.result["exc_type"]),
        (Status::Failure, &json!("SoftTimeLimitExceeded"))
    );

    let gone = says(&["cancel_consumer", "other"]).await;
    assert_eq!(gone, ok("no longer consuming from other"));
    let queues = stage.ask("active_queues", json!({})).await;
    assert_eq!(queues.as_array().unwrap().len(), 1);
    stage.end().await;
}

async fn celery_shuts_the_worker_down(python: Python) {
    let stage = Stage::set().await;
    stage
        .client
        .send(Signature::new("gated").arg("runs"))
        .await
        .unwrap();
    stage.journal.until(1).await;
    let url = stage.server.url();
    // No worker replies to it, which Celery's command line takes for a failure.
    let shutdown = [
        "-m",
        "celery",
        "-b",
        &url,
        "control",
        "shutdown",
        "--timeout",
        "1",
    ];
    let output = python.command(&url, &shutdown).output().await.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("No nodes replied"),
        "{output:?}"
    );
    stage.gate.cancel();
    stage.running.ended().await.unwrap();
    assert_eq!(stage.journal.lines(), ["runs"], "it was allowed to finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_back_its_own_task_only() {
    let stage = Stage::set().await;
    assert_eq!(
        stage.rate("note", "1/h").await,
        ok("new rate limit set successfully")
    );
    for line in ["first", "second", "third"] {
        stage.client.send(Signature::new("note").arg(line)).await.unwrap();
    }
    // More than are prefetched: those that wait for their turn must not count.
    for _ in 0..20 {
        let id = stage
            .client
            .send(Signature::new("add").arg(1).arg(1))
            .await
            .unwrap();
        assert_eq!(final_result(&stage.client, &id).await.result, json!(2));
    }
    assert_eq!(stage.journal.lines(), ["first"]);
    assert_eq!(
        stage.rate("note", "0").await,
        ok("new rate limit set successfully")
    );
    let mut lines = stage.journal.until(3).await;
    lines.sort();
    assert_eq!(lines, ["first", "second", "third"]);
    assert_eq!(
        stage.rate("none such", "1/s").await,
        json!({"error": "unknown task"})
    );
    let wrong = stage.rate("note", "often").await;
    assert!(
        wrong["error"]
            .as_str()
            .unwrap()
            .starts_with("Invalid rate limit string"),
        "{wrong}"
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_grows_and_shrinks_while_tasks_run() {
    let stage = Stage::set().await;
    for line in ["a", "b", "c", "d"] {
        stage
            .client
            .send(Signature::new("gated").arg(line))
            .await
            .unwrap();
    }
    // Tasks that run side by side write in any order.
    let begun = async |count| {
        let mut lines = stage.journal.until(count).await;
        lines.sort();
        lines
    };
    assert_eq!(begun(2).await, ["a", "b"]);
    assert_eq!(
        stage.ask("pool_grow", json!({"n": 1})).await,
        ok("pool will grow")
    );
    assert_eq!(begun(3).await, ["a", "b", "c"]);
    assert_eq!(
        stage.ask("pool_shrink", json!({"n": 2})).await,
        ok("pool will shrink")
    );
    let refused = stage.ask("pool_shrink", json!({"n": 1})).await;
    assert_eq!(
        refused,
        json!({"error": "ValueError('the pool cannot shrink to nothing')"})
    );
    // One of the three may go on when its task ends, the other two slots are gone.
    stage.gate.cancel();
    stage.journal.until(4).await;
    let active = stage.ask("stats", json!({})).await;
    assert_eq!(active["pool"]["max-concurrency"], 1);
    let refused = stage.ask("autoscale", json!({"max": 3, "min": 1})).await;
    assert_eq!(refused, json!({"error": "ValueError('Autoscale not enabled')"}));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_come_and_go() {
    let stage = Stage::set().await;
    stage
        .client
        .send(Signature::new("note").arg("waits").queue("other"))
        .await
        .unwrap();
    stage.ask("add_consumer", json!({"queue": "other"})).await;
    assert_eq!(stage.journal.until(1).await, ["waits"]);
    for queue in ["other", "celery"] {
        stage.ask("cancel_consumer", json!({"queue": queue})).await;
    }
    assert_eq!(stage.ask("active_queues", json!({})).await, json!([]));
    // What a receive that was under way has still taken is run; from then on messages stay.
    eventually("messages stay in their queue", async || {
        stage.client.send(Signature::new("note").arg("x")).await.unwrap();
        // Time in which a worker that still receives would take it; too little of it only means another round.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waiting = stage.broker.depth("celery").await.unwrap().waiting;
        (waiting > 0).then_some(())
    })
    .await;
    stage.ask("add_consumer", json!({"queue": "celery"})).await;
    eventually("and are taken again", async || {
        (stage.broker.depth("celery").await.unwrap().waiting == 0).then_some(())
    })
    .await;
    let client = Client::new(stage.broker.clone());
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, json!(2));
    stage.end().await;
}
