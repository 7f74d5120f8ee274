//! Tasks that are ended from outside.

use std::time::Duration;

use celeriac::{Signature, Status};
use serde_json::json;

use crate::{
    Stage,
    celery::Python,
    ok,
    support::{PATIENCE, Running, eventually, final_result, worker},
    with_every_celery,
};

with_every_celery! {
    celery_revokes_what_waits_and_terminates_what_runs
    a_revocation_holds_for_a_worker_that_starts_later
}

fn later() -> Signature {
    Signature::new("add")
        .arg(1)
        .arg(2)
        .countdown(Duration::from_secs(3600))
}

async fn celery_revokes_what_waits_and_terminates_what_runs(python: Python) {
    let stage = Stage::set().await;
    let scheduled = stage.client.send(later()).await.unwrap();
    let running = stage.client.send(Signature::new("sleeps")).await.unwrap();
    eventually("both are held", async || {
        let held = stage
            .ask("query_task", json!({"ids": [&scheduled, &running]}))
            .await;
        (held[&running][0] == "active" && held[&scheduled][0] == "reserved").then_some(())
    })
    .await;
    let said = stage
        .celery(&python, &["control", "revoke", &scheduled, &running])
        .await;
    let flagged = said["ok"].as_str().unwrap();
    assert!(
        flagged.starts_with("tasks {'") && flagged.ends_with("'} flagged as revoked"),
        "{flagged}"
    );
    assert!(
        flagged.contains(&scheduled) && flagged.contains(&running),
        "{flagged}"
    );
    let meta = final_result(&stage.client, &scheduled).await;
    assert_eq!(meta.status, Status::Revoked);
    assert_eq!(meta.result["exc_type"], "TaskRevokedError");
    assert_eq!(meta.result["exc_message"], json!(["revoked"]));
    let revoked = stage.celery(&python, &["inspect", "revoked"]).await;
    assert_eq!(revoked.as_array().unwrap().len(), 2);
    // It runs on until it is terminated.
    assert_eq!(
        stage.client.result(&running).await.unwrap().unwrap().status,
        Status::Started
    );
    let said = stage
        .celery(&python, &["control", "terminate", "KILL", &running])
        .await;
    assert_eq!(said, ok(&format!("terminate: {running}")));
    let meta = final_result(&stage.client, &running).await;
    assert_eq!(
        (meta.status, &meta.result["exc_message"]),
        (Status::Revoked, &json!(["terminated"]))
    );
    let said = stage
        .celery(&python, &["control", "terminate", "KILL", "none-such"])
        .await;
    assert_eq!(said, ok("terminate: tasks unknown"));
    eventually("nothing is left", async || {
        let depth = stage.broker.depth("celery").await.unwrap();
        (depth.waiting + depth.unacked == 0).then_some(())
    })
    .await;
    stage.end().await;
}

async fn a_revocation_holds_for_a_worker_that_starts_later(python: Python) {
    let stage = Stage::set().await;
    let other = python
        .worker(&stage.server.url(), &["--queues", "other"], &[])
        .await;
    stage.until_there_are(2).await;
    let id = uuid::Uuid::from_u128(7);
    let replies = stage.control().revoke(&[id.to_string()], false).await.unwrap();
    assert_eq!(replies.len(), 2, "{replies:?}");
    // Only the Python worker remembers, and the next Rust worker hears of it from there.
    let Stage {
        server,
        client,
        running,
        journal,
        gate,
        broker,
    } = stage;
    running.stop().await.unwrap();
    client
        .send(Signature::new("note").arg("revoked").id(id))
        .await
        .unwrap();
    let next = worker(broker.clone(), &journal, &gate)
        .hostname("next@test")
        .build();
    let next = Running::start(next, PATIENCE);
    let meta = final_result(&client, &id.to_string()).await;
    assert_eq!(meta.status, Status::Revoked);
    client.send(Signature::new("note").arg("runs")).await.unwrap();
    assert_eq!(journal.until(1).await, ["runs"]);
    // And the other way round.
    let told = Signature::new("note").arg("told").queue("other");
    let told_id = uuid::Uuid::from_u128(8);
    other.stop().await;
    crate::Control::new(broker)
        .timeout(PATIENCE)
        .revoke(&[told_id.to_string()], false)
        .await
        .unwrap();
    client.send(told.id(told_id)).await.unwrap();
    let other = python.worker(&server.url(), &["--queues", "other"], &[]).await;
    eventually("the Python worker drops it", async || {
        other.log().contains("Discarding revoked task").then_some(())
    })
    .await;
    next.stop().await.unwrap();
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_told_at_once_and_changes_no_end() {
    let stage = Stage::set().await;
    let done = stage
        .client
        .send(Signature::new("add").arg(1).arg(1))
        .await
        .unwrap();
    assert_eq!(final_result(&stage.client, &done).await.status, Status::Success);
    let unseen = "00000000-0000-0000-0000-000000000009".to_owned();
    stage
        .control()
        .revoke(&[done.clone(), unseen.clone()], true)
        .await
        .unwrap();
    // Before the worker has replied, so that who waits for the task need not wait until some worker receives it.
    let meta = stage.client.result(&unseen).await.unwrap().expect("a result");
    assert_eq!(
        (meta.status, &meta.result["exc_message"]),
        (Status::Revoked, &json!(["revoked"]))
    );
    let meta = stage.client.result(&done).await.unwrap().expect("a result");
    assert_eq!((meta.status, meta.result), (Status::Success, json!(2)));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_revoked_by_their_stamps() {
    let stage = Stage::set().await;
    let order = json!({"headers": {"tenant": ["a", "b"]}});
    let said = stage.ask("revoke_by_stamped_headers", order).await;
    assert_eq!(said, ok("headers tenant flagged as revoked, but not terminated"));
    let stamped = |tenant: &str, line: &str| {
        let stamps = json!({"tenant": [tenant]});
        let note = Signature::new("note").arg(line);
        note.header("stamped_headers", json!(["tenant"]))
            .header("stamps", stamps)
    };
    let revoked = stage.client.send(stamped("b", "revoked")).await.unwrap();
    let runs = stage.client.send(stamped("c", "runs")).await.unwrap();
    assert_eq!(
        final_result(&stage.client, &revoked).await.status,
        Status::Revoked
    );
    assert_eq!(final_result(&stage.client, &runs).await.status, Status::Success);
    assert_eq!(stage.journal.lines(), ["runs"]);
    stage.end().await;
}
