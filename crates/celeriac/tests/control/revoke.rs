//! Revocation and termination of tasks.

use std::time::Duration;

use celeriac::{Signature, Status};
use serde_json::json;

use crate::{
    Fixture,
    celery::Python,
    ok,
    support::{PATIENCE, Running, eventually, final_result, worker},
    with_every_celery,
};

with_every_celery! {
    celery_revokes_waiting_tasks_and_terminates_running_ones
    a_revocation_applies_to_a_worker_that_starts_later
}

fn later() -> Signature {
    Signature::new("add")
        .arg(1)
        .arg(2)
        .countdown(Duration::from_secs(3600))
}

/// Deletes the stored ids.
fn forget_revoked(fixture: &Fixture) {
    let deleted: u64 = redis::cmd("DEL")
        .arg("celeriac.revoked")
        .query(&mut fixture.server.connection())
        .unwrap();
    assert_eq!(deleted, 1);
}

async fn celery_revokes_waiting_tasks_and_terminates_running_ones(python: Python) {
    let fixture = Fixture::start().await;
    let scheduled = fixture.client.send(later()).await.unwrap();
    let running = fixture.client.send(Signature::new("sleeps")).await.unwrap();
    eventually("both tasks are held", async || {
        let held = fixture
            .query("query_task", json!({"ids": [&scheduled, &running]}))
            .await;
        (held[running.as_str()][0] == "active" && held[scheduled.as_str()][0] == "reserved").then_some(())
    })
    .await;
    let reply = fixture
        .celery(&python, &["control", "revoke", &scheduled, &running])
        .await;
    let flagged = reply["ok"].as_str().unwrap();
    assert!(
        flagged.starts_with("tasks {'") && flagged.ends_with("'} flagged as revoked"),
        "{flagged}"
    );
    assert!(
        flagged.contains(scheduled.as_str()) && flagged.contains(running.as_str()),
        "{flagged}"
    );
    let meta = final_result(&fixture.client, &scheduled).await;
    assert_eq!(meta.status, Status::Revoked);
    assert_eq!(meta.result["exc_type"], "TaskRevokedError");
    assert_eq!(meta.result["exc_message"], json!(["revoked"]));
    let revoked = fixture.celery(&python, &["inspect", "revoked"]).await;
    assert_eq!(revoked.as_array().unwrap().len(), 2);
    // The running task continues until it is terminated.
    assert_eq!(
        fixture.client.result(&running).await.unwrap().unwrap().status,
        Status::Started
    );
    let reply = fixture
        .celery(&python, &["control", "terminate", "KILL", &running])
        .await;
    assert_eq!(reply, ok(&format!("terminate: {running}")));
    let meta = final_result(&fixture.client, &running).await;
    assert_eq!(
        (meta.status, &meta.result["exc_message"]),
        (Status::Revoked, &json!(["terminated"]))
    );
    let reply = fixture
        .celery(&python, &["control", "terminate", "KILL", "none-such"])
        .await;
    assert_eq!(reply, ok("terminate: tasks unknown"));
    eventually("no message is left", async || {
        let depth = fixture.broker.depth("celery").await.unwrap();
        (depth.waiting + depth.unacked == 0).then_some(())
    })
    .await;
    fixture.stop().await;
}

async fn a_revocation_applies_to_a_worker_that_starts_later(python: Python) {
    let fixture = Fixture::start().await;
    let other = python
        .worker(&fixture.server.url(), &["--queues", "other"], &[])
        .await;
    fixture.until_workers(2).await;
    let id = uuid::Uuid::from_u128(7);
    let replies = fixture.control().revoke(&[id.to_string()], false).await.unwrap();
    assert_eq!(replies.len(), 2, "{replies:?}");
    // Then only the Python worker remembers the id, and passes it on to the next Rust worker.
    forget_revoked(&fixture);
    let Fixture {
        server,
        client,
        running,
        journal,
        gate,
        broker,
    } = fixture;
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
    // The same in the other direction.
    let revoked_task = Signature::new("note").arg("revoked_task").queue("other");
    let revoked_id = uuid::Uuid::from_u128(8);
    other.stop().await;
    crate::Control::new(broker)
        .timeout(PATIENCE)
        .revoke(&[revoked_id.to_string()], false)
        .await
        .unwrap();
    client.send(revoked_task.id(revoked_id)).await.unwrap();
    let other = python.worker(&server.url(), &["--queues", "other"], &[]).await;
    eventually("the Python worker discards the task", async || {
        other.log().contains("Discarding revoked task").then_some(())
    })
    .await;
    next.stop().await.unwrap();
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_outlives_all_workers_for_three_hours() {
    let fixture = Fixture::start().await;
    let ids = ["revoked", "forgotten"];
    fixture.control().revoke(ids, false).await.unwrap();
    let connection = &mut fixture.server.connection();
    let (now, _): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    let long_ago = now - 3 * 3600 - 1;
    let mut revoked = redis::cmd("ZADD");
    revoked.arg("celeriac.revoked").arg(long_ago).arg("forgotten");
    revoked.exec(connection).unwrap();
    let Fixture {
        server: _server,
        client,
        running,
        journal,
        gate,
        broker,
    } = fixture;
    running.stop().await.unwrap();
    // The revocation has stored results, which would keep the tasks from running.
    for id in ids {
        client.result_of(id).forget().await.unwrap();
    }
    for id in ids {
        client.send(Signature::new("note").arg(id).id(id)).await.unwrap();
    }
    let next = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    assert_eq!(final_result(&client, "revoked").await.status, Status::Revoked);
    assert_eq!(final_result(&client, "forgotten").await.status, Status::Success);
    assert_eq!(journal.lines(), ["forgotten"]);
    next.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_stored_immediately_and_changes_no_final_result() {
    let fixture = Fixture::start().await;
    let done = fixture
        .client
        .send(Signature::new("add").arg(1).arg(1))
        .await
        .unwrap();
    assert_eq!(final_result(&fixture.client, &done).await.status, Status::Success);
    let unseen = "00000000-0000-0000-0000-000000000009".to_owned();
    fixture
        .control()
        .revoke([done.clone(), unseen.clone().into()], true)
        .await
        .unwrap();
    // Stored before the worker replies: clients need not wait until a worker receives the task.
    let meta = fixture.client.result(&unseen).await.unwrap().expect("a result");
    assert_eq!(
        (meta.status, &meta.result["exc_message"]),
        (Status::Revoked, &json!(["revoked"]))
    );
    let meta = fixture.client.result(&done).await.unwrap().expect("a result");
    assert_eq!((meta.status, meta.result), (Status::Success, json!(2)));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_revoked_by_their_stamps() {
    let fixture = Fixture::start().await;
    let order = json!({"headers": {"tenant": ["a", "b"]}});
    let reply = fixture.query("revoke_by_stamped_headers", order).await;
    assert_eq!(
        reply,
        ok("headers {'tenant': ['a', 'b']} flagged as revoked, but not terminated")
    );
    let stamped = |tenant: &str, line: &str| {
        let stamps = json!({"tenant": [tenant]});
        let note = Signature::new("note").arg(line);
        note.header("stamped_headers", json!(["tenant"]))
            .header("stamps", stamps)
    };
    let revoked = fixture.client.send(stamped("b", "revoked")).await.unwrap();
    let runs = fixture.client.send(stamped("c", "runs")).await.unwrap();
    assert_eq!(
        final_result(&fixture.client, &revoked).await.status,
        Status::Revoked
    );
    assert_eq!(final_result(&fixture.client, &runs).await.status, Status::Success);
    assert_eq!(fixture.journal.lines(), ["runs"]);
    fixture.stop().await;
}
