//! Servers that return with older data: restarted from a snapshot, or replaced by a replica that lagged
//! behind.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, RedisBroker, RedisConfig, Signature, Status, chord};
use redis::cmd;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    LEASE, broker, drained,
    logs::Logs,
    proxy::Proxy,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

/// Saves a snapshot, from which the next start restores the data.
fn save(server: &mut Server) {
    cmd("SAVE").exec(&mut server.connection()).unwrap();
    server.arguments = &["--appendonly", "no"];
}

fn length(server: &Server, queue: &str) -> usize {
    cmd("LLEN").arg(queue).query(&mut server.connection()).unwrap()
}

/// Everything that a worker holds and writes, before and after the loss.
struct Work {
    client: Client,
    journal: Journal,
    gate: CancellationToken,
    running: Running,
}

impl Work {
    async fn start(broker: Arc<RedisBroker>) -> Self {
        let (journal, gate) = (Journal::default(), CancellationToken::new());
        let built = worker(broker.clone(), &journal, &gate).build();
        let work = Self {
            client: Client::new(broker),
            running: Running::start(built, PATIENCE),
            journal,
            gate,
        };
        // The lease is part of the snapshot.
        let id = work.send(Signature::new("add").arg(1).arg(1)).await;
        final_result(&work.client, &id).await;
        work
    }

    async fn send(&self, task: Signature) -> String {
        self.client.send(task).await.unwrap().to_string()
    }
}

#[tokio::test]
async fn what_a_worker_holds_survives_a_restart_from_a_snapshot() {
    let mut server = Server::start();
    let broker = broker(server.url());
    let work = Work::start(broker.clone()).await;
    save(&mut server);
    // `early` with one retry is acknowledged before it starts; the others after they end.
    let retried = work.send(Signature::new("early").arg("retried").arg(1)).await;
    let plain = work.send(Signature::new("gated").arg("plain")).await;
    let first = Signature::new("gated").arg("first");
    let chain = first.then(Signature::new("note").arg("next").immutable());
    let chain = work.client.apply(chain).await.unwrap();
    let note = Signature::new("note").arg("later");
    work.send(note.countdown(Duration::from_secs(600))).await;
    work.journal.until(3).await;
    eventually("everything is held", async || {
        (broker.depth("celery").await.unwrap().unacked == 3).then_some(())
    })
    .await;
    server.crash();
    server.start_again();
    eventually("the deliveries are reserved again", async || {
        (broker.depth("celery").await.ok()?.unacked == 3).then_some(())
    })
    .await;
    work.gate.cancel();
    for id in [&retried, &plain] {
        assert_eq!(
            final_result(&work.client, id).await.status,
            Status::Success,
            "{id}"
        );
    }
    assert_eq!(chain.wait(PATIENCE).await, Ok(json!(null)));
    work.running.stop().await.unwrap();
    let depth = broker.depth("celery").await.unwrap();
    assert_eq!(
        (depth.waiting, depth.unacked),
        (1, 0),
        "the task for later is in its queue"
    );
    let mut lines = work.journal.lines();
    lines.sort();
    assert_eq!(lines, ["first", "next", "plain", "retried", "retried"]);
}

/// Loses a result, the next task of a chain, and a retry, which are written again.
async fn assert_writes_survive(
    work: &Work,
    broker: &RedisBroker,
    lose: impl AsyncFnOnce() -> Server,
) -> Server {
    let result = work.send(Signature::new("add").arg(20).arg(22)).await;
    let next = Signature::new("note").arg("next").queue("elsewhere").immutable();
    let chain = Signature::new("add").arg(1).arg(1).then(next);
    let chain = work.client.apply(chain).await.unwrap();
    // Each of its 200 attempts sends a retry.
    let retried = work.send(Signature::new("flaky").arg(200).max_retries(200)).await;
    assert_eq!(final_result(&work.client, &result).await.result, json!(42));
    eventually("the chain has continued", async || {
        (broker.depth("elsewhere").await.unwrap().waiting == 1).then_some(())
    })
    .await;
    // Time for several retries.
    tokio::time::sleep(LEASE / 2).await;
    let server = lose().await;
    eventually("the next task of the chain is sent again", async || {
        (length(&server, "elsewhere") == 1).then_some(())
    })
    .await;
    assert_eq!(final_result(&work.client, &result).await.result, json!(42));
    assert_eq!(final_result(&work.client, &retried).await.status, Status::Success);
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let other = worker(crate::broker(server.url()), &journal, &gate).queue("elsewhere");
    let other = Running::start(other.build(), PATIENCE);
    assert_eq!(chain.wait(PATIENCE).await, Ok(json!(null)));
    other.stop().await.unwrap();
    server
}

#[tokio::test]
async fn what_a_worker_wrote_survives_a_restart_from_a_snapshot() {
    let (logs, _guard) = Logs::capture();
    let mut server = Server::start();
    let broker = broker(server.url());
    let work = Work::start(broker.clone()).await;
    save(&mut server);
    let _server = assert_writes_survive(&work, &broker, async || {
        server.crash();
        server.start_again();
        server
    })
    .await;
    drained(&broker).await;
    work.running.stop().await.unwrap();
    let lines = logs.problems();
    let count = |text| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("the broker had lost data"), 1, "{lines:#?}");
    // Only the attempt at the time of the crash may be repeated.
    let retries = count("task will be retried");
    assert!((200..=201).contains(&retries), "{retries} retries");
}

/// A real replica that stops replicating, and then takes over the address of its primary.
#[tokio::test]
async fn what_a_worker_wrote_survives_a_fail_over_to_a_lagging_replica() {
    let (mut primary, replica) = (Server::start(), Server::start());
    cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(primary.port)
        .exec(&mut replica.connection())
        .unwrap();
    let proxy = Proxy::start(primary.port);
    let broker = broker(proxy.url());
    let work = Work::start(broker.clone()).await;
    eventually("the replica has the result", async || {
        let info: String = cmd("INFO")
            .arg("replication")
            .query(&mut replica.connection())
            .unwrap();
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut replica.connection()).unwrap();
        let has_result = keys.iter().any(|key| key.starts_with("celery-task-meta-"));
        (info.contains("master_link_status:up") && has_result).then_some(())
    })
    .await;
    cmd("REPLICAOF")
        .arg("NO")
        .arg("ONE")
        .exec(&mut replica.connection())
        .unwrap();
    let _replica = assert_writes_survive(&work, &broker, async || {
        proxy.set_target(replica.port);
        primary.crash();
        replica
    })
    .await;
    drained(&broker).await;
    work.running.stop().await.unwrap();
}

/// The snapshot contains the chord's header and the reservation of its first part.
#[tokio::test]
async fn a_chord_completes_although_the_server_lost_a_part() {
    let mut server = Server::start();
    let broker = broker(server.url());
    let work = Work::start(broker.clone()).await;
    let other = Signature::new("pass").arg(2).queue("elsewhere");
    let chord = chord(
        [Signature::new("gated").arg("part"), other],
        Signature::new("pass"),
    );
    let chord = work.client.apply(chord).await.unwrap();
    work.journal.until(1).await;
    save(&mut server);
    work.gate.cancel();
    drained(&broker).await;
    server.crash();
    server.start_again();
    let parts = || -> usize {
        let mut connection = server.connection();
        let keys: Vec<String> = cmd("KEYS")
            .arg("celery-taskset-meta-*.j")
            .query(&mut connection)
            .unwrap();
        let count = |key| {
            cmd("ZCARD")
                .arg(key)
                .query::<usize>(&mut server.connection())
                .unwrap()
        };
        keys.into_iter().map(count).sum()
    };
    eventually("the part is recorded and acknowledged again", async || {
        let depth = broker.depth("celery").await.ok()?;
        (depth.unacked == 0 && parts() == 1).then_some(())
    })
    .await;
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let other = worker(crate::broker(server.url()), &journal, &gate).queue("elsewhere");
    let other = Running::start(other.build(), PATIENCE);
    assert_eq!(chord.wait(PATIENCE).await, Ok(json!([null, 2])));
    other.stop().await.unwrap();
    work.running.stop().await.unwrap();
    assert_eq!(work.journal.lines(), ["part"]);
}

/// The append-only file keeps everything, so what others have taken over is not lost.
#[tokio::test]
async fn a_restart_that_loses_nothing_repeats_nothing() {
    let (logs, _guard) = Logs::capture();
    let mut server = Server::start();
    let broker = broker(server.url());
    let work = Work::start(broker.clone()).await;
    let held = work.send(Signature::new("gated").arg("held")).await;
    let next = Signature::new("note")
        .arg("elsewhere")
        .queue("elsewhere")
        .immutable();
    let step = Signature::new("add").arg(1).arg(1);
    work.client.apply(step.then(next)).await.unwrap();
    work.journal.until(1).await;
    eventually("the chain has continued", async || {
        (broker.depth("elsewhere").await.unwrap().waiting == 1).then_some(())
    })
    .await;
    // Several renewals are stored.
    tokio::time::sleep(LEASE / 2).await;
    for _ in 0..2 {
        server.crash();
        server.start_again();
        eventually("the worker is back", async || {
            let id = work.client.send(Signature::new("add").arg(1).arg(1)).await.ok()?;
            Some(final_result(&work.client, &id).await)
        })
        .await;
        tokio::time::sleep(LEASE).await;
        assert_eq!(
            length(&server, "elsewhere"),
            1,
            "the follow-up task is not sent twice"
        );
    }
    work.gate.cancel();
    assert_eq!(final_result(&work.client, &held).await.status, Status::Success);
    work.running.stop().await.unwrap();
    assert_eq!(work.journal.lines(), ["held"]);
    let lines = logs.problems();
    assert!(lines.iter().all(|line| line.contains("Redis is ")), "{lines:#?}");
}

#[tokio::test]
async fn a_worker_may_remember_nothing() {
    let mut server = Server::start();
    let config = RedisConfig::new(server.url())
        .lease(LEASE)
        .rewrite(0, Duration::ZERO);
    let broker = Arc::new(RedisBroker::new(config).unwrap());
    let work = Work::start(broker.clone()).await;
    // Reserved in the snapshot, and settled afterwards.
    let forgotten = Signature::new("flaky").arg(0).countdown(LEASE);
    let forgotten = work.send(forgotten).await;
    eventually("the worker holds the task", async || {
        (broker.depth("celery").await.unwrap().unacked == 1).then_some(())
    })
    .await;
    tokio::time::sleep(LEASE / 2).await;
    save(&mut server);
    let id = work.send(Signature::new("add").arg(1).arg(1)).await;
    final_result(&work.client, &id).await;
    final_result(&work.client, &forgotten).await;
    let gated = work.send(Signature::new("gated").arg("held")).await;
    work.journal.until(1).await;
    server.crash();
    server.start_again();
    eventually("the delivery is reserved again", async || {
        (broker.depth("celery").await.ok()?.unacked == 1).then_some(())
    })
    .await;
    assert_eq!(work.client.result(&id).await.unwrap(), None);
    assert_eq!(
        final_result(&work.client, &forgotten).await.status,
        Status::Success,
        "the task runs again, because its end is forgotten"
    );
    work.gate.cancel();
    assert_eq!(final_result(&work.client, &gated).await.status, Status::Success);
    work.running.stop().await.unwrap();
}

/// Accounts may lack the permission for `INFO`.
#[tokio::test]
async fn older_data_of_a_server_without_an_identity_is_noticed_too() {
    let mut server = Server::start();
    cmd("ACL")
        .arg(&["SETUSER", "default", "-info"])
        .exec(&mut server.connection())
        .unwrap();
    let broker = broker(server.url());
    let work = Work::start(broker.clone()).await;
    cmd("SAVE").exec(&mut server.connection()).unwrap();
    server.arguments = &["--appendonly", "no", "--rename-command", "INFO", ""];
    let result = work.send(Signature::new("add").arg(20).arg(22)).await;
    assert_eq!(final_result(&work.client, &result).await.result, json!(42));
    let held = work.send(Signature::new("gated").arg("held")).await;
    work.journal.until(1).await;
    server.crash();
    server.start_again();
    eventually("the delivery is reserved again", async || {
        (broker.depth("celery").await.ok()?.unacked == 1).then_some(())
    })
    .await;
    assert_eq!(final_result(&work.client, &result).await.result, json!(42));
    work.gate.cancel();
    assert_eq!(final_result(&work.client, &held).await.status, Status::Success);
    work.running.stop().await.unwrap();
    assert_eq!(work.journal.lines(), ["held"]);
}
