//! Tests failures of Redis. The worker must recover without help, and log each outage and its end once.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

mod access;
mod connections;
mod flushes;
#[path = "../support/logs.rs"]
mod logs;
mod refusals;
mod sentinels;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::{sync::Arc, time::Duration};

use celeriac::{Client, Control, Signature, Status};
use tokio_util::sync::CancellationToken;

use crate::{
    logs::Logs,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

/// Starts a worker with the tests' tasks.
fn start(server: &Server, journal: &Journal, gate: &CancellationToken) -> (Client, Running) {
    let broker = Arc::new(server.broker());
    let running = Running::start(worker(broker.clone(), journal, gate).build(), PATIENCE);
    (Client::new(broker), running)
}

#[tokio::test]
async fn an_outage_and_its_end_are_logged_once() {
    let (logs, _guard) = Logs::capture();
    let mut server = Server::start();
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let broker = Arc::new(server.broker());
    let control = Control::new(broker.clone());
    let client = Client::new(broker.clone());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let mut ids = Vec::new();
    for number in 0..8 {
        let task = Signature::new("gated").arg(format!("{number}"));
        ids.push(client.send(task).await.unwrap());
    }
    journal.until(8).await;
    server.crash();
    eventually("the outage is detected", async || {
        client.result(&ids[0]).await.err()
    })
    .await;
    // During the outage, tasks finish, heartbeats and renewals are due, and all loops retry.
    gate.cancel();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.start_again();
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    let next = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &next).await.status, Status::Success);
    eventually("the worker replies again", async || {
        (control.ping().await.unwrap() == ["celery@test"]).then_some(())
    })
    .await;
    running.stop().await.unwrap();
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable", "INFO Redis is back"],
        "{:#?}",
        logs.lines()
    );
    let recovery = logs.problems().remove(1);
    let seconds: f64 = recovery
        .split_once("outage.duration=")
        .unwrap()
        .1
        .trim_end_matches(']')
        .parse()
        .unwrap();
    assert!((2.9..30.0).contains(&seconds), "{recovery}");
    assert_eq!(journal.lines().len(), 8, "no task ran twice");
}
