//! Methods that change a running worker.

use std::time::Duration;

use celeriac::{Client, Signature, Status};
use serde_json::{Value, json};

use crate::{
    Fixture,
    celery::Python,
    ok,
    support::{eventually, final_result},
    with_every_celery,
};

with_every_celery! {
    celery_changes_the_worker
    celery_shuts_the_worker_down
}

async fn celery_changes_the_worker(python: Python) {
    let fixture = Fixture::start().await;
    let control = async |arguments: &[&str]| {
        let command: Vec<&str> = [&["control"], arguments].concat();
        fixture.celery(&python, &command).await
    };
    let rate = control(&["rate_limit", "add", "10/s"]).await;
    assert_eq!(rate, ok("new rate limit set successfully"));
    let time = control(&["time_limit", "sleeps", "0.1", "0.2"]).await;
    assert_eq!(time, ok("time limits set successfully"));
    assert_eq!(
        control(&["add_consumer", "other"]).await,
        ok("add consumer other")
    );
    assert_eq!(control(&["pool_grow", "3"]).await, ok("pool will grow"));
    assert_eq!(control(&["pool_shrink", "1"]).await, ok("pool will shrink"));
    assert_eq!(control(&["enable_events"]).await, ok("task events enabled"));
    assert_eq!(
        control(&["enable_events"]).await,
        ok("task events already enabled")
    );
    assert_eq!(control(&["disable_events"]).await, ok("task events disabled"));
    assert_eq!(control(&["heartbeat"]).await, Value::Null);

    let stats = fixture.query("stats", json!({})).await;
    assert_eq!(
        (&stats["pool"]["max-concurrency"], &stats["prefetch_count"]),
        (&json!(4), &json!(16))
    );
    let tasks = fixture.celery(&python, &["inspect", "registered"]).await;
    assert_eq!(tasks[0], "add [rate_limit=10/s]");
    let id = fixture
        .client
        .send(Signature::new("sleeps").queue("other"))
        .await
        .unwrap();
    let meta = final_result(&fixture.client, &id).await;
    assert_eq!(
        (meta.status, &meta.result["exc_type"]),
        (Status::Failure, &json!("SoftTimeLimitExceeded"))
    );

    let cancelled = control(&["cancel_consumer", "other"]).await;
    assert_eq!(cancelled, ok("no longer consuming from other"));
    let queues = fixture.query("active_queues", json!({})).await;
    assert_eq!(queues.as_array().unwrap().len(), 1);
    fixture.stop().await;
}

async fn celery_shuts_the_worker_down(python: Python) {
    let fixture = Fixture::start().await;
    fixture
        .client
        .send(Signature::new("gated").arg("runs"))
        .await
        .unwrap();
    fixture.journal.until(1).await;
    let url = fixture.server.url();
    // No worker replies, which Celery's command line reports as an error.
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
    fixture.gate.cancel();
    fixture.running.ended().await.unwrap();
    assert_eq!(fixture.journal.lines(), ["runs"], "the running task may finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_delays_only_its_own_task() {
    let fixture = Fixture::start().await;
    assert_eq!(
        fixture.rate("note", "1/h").await,
        ok("new rate limit set successfully")
    );
    for line in ["first", "second", "third"] {
        fixture
            .client
            .send(Signature::new("note").arg(line))
            .await
            .unwrap();
        // Tasks that are received together run in any order.
        fixture.journal.until(1).await;
    }
    // More tasks than are prefetched: rate-limited tasks must not occupy slots.
    for _ in 0..20 {
        let id = fixture
            .client
            .send(Signature::new("add").arg(1).arg(1))
            .await
            .unwrap();
        assert_eq!(final_result(&fixture.client, &id).await.result, json!(2));
    }
    assert_eq!(fixture.journal.lines(), ["first"]);
    assert_eq!(
        fixture.rate("note", "0").await,
        ok("new rate limit set successfully")
    );
    let mut lines = fixture.journal.until(3).await;
    lines.sort();
    assert_eq!(lines, ["first", "second", "third"]);
    assert_eq!(
        fixture.rate("none such", "1/s").await,
        json!({"error": "unknown task"})
    );
    let invalid = fixture.rate("note", "often").await;
    assert!(
        invalid["error"]
            .as_str()
            .unwrap()
            .starts_with("Invalid rate limit string"),
        "{invalid}"
    );
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_grows_and_shrinks_while_tasks_run() {
    let fixture = Fixture::start().await;
    for line in ["a", "b", "c", "d"] {
        fixture
            .client
            .send(Signature::new("gated").arg(line))
            .await
            .unwrap();
    }
    // Concurrent tasks write in any order.
    let started = async |count| {
        let mut lines = fixture.journal.until(count).await;
        lines.sort();
        lines
    };
    assert_eq!(started(2).await, ["a", "b"]);
    assert_eq!(
        fixture.query("pool_grow", json!({"n": 1})).await,
        ok("pool will grow")
    );
    assert_eq!(started(3).await, ["a", "b", "c"]);
    assert_eq!(
        fixture.query("pool_shrink", json!({"n": 2})).await,
        ok("pool will shrink")
    );
    let rejected = fixture.query("pool_shrink", json!({"n": 1})).await;
    assert_eq!(
        rejected,
        json!({"error": "ValueError('the pool must keep at least one slot')"})
    );
    // One of the three slots remains; the other two are removed when their tasks finish.
    fixture.gate.cancel();
    fixture.journal.until(4).await;
    let active = fixture.query("stats", json!({})).await;
    assert_eq!(active["pool"]["max-concurrency"], 1);
    let rejected = fixture.query("autoscale", json!({"max": 3, "min": 1})).await;
    assert_eq!(rejected, json!({"error": "ValueError('Autoscale not enabled')"}));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_added_and_cancelled() {
    let fixture = Fixture::start().await;
    fixture
        .client
        .send(Signature::new("note").arg("waits").queue("other"))
        .await
        .unwrap();
    fixture.query("add_consumer", json!({"queue": "other"})).await;
    assert_eq!(fixture.journal.until(1).await, ["waits"]);
    for queue in ["other", "celery"] {
        fixture.query("cancel_consumer", json!({"queue": queue})).await;
    }
    assert_eq!(fixture.query("active_queues", json!({})).await, json!([]));
    // A receive in progress may still deliver messages; later messages stay in the queue.
    eventually("messages stay in their queue", async || {
        fixture
            .client
            .send(Signature::new("note").arg("x"))
            .await
            .unwrap();
        // Gives a worker that still receives time to receive the message; if the time is too short, the loop
        // runs again.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waiting = fixture.broker.depth("celery").await.unwrap().waiting;
        (waiting > 0).then_some(())
    })
    .await;
    fixture.query("add_consumer", json!({"queue": "celery"})).await;
    eventually("messages are received again", async || {
        (fixture.broker.depth("celery").await.unwrap().waiting == 0).then_some(())
    })
    .await;
    let client = Client::new(fixture.broker.clone());
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, json!(2));
    fixture.stop().await;
}
