//! Loss of the server's scripts or of all its data, while workers wait, run tasks or settle them.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, LoggedSendError, PublicationLog, RedisBroker, Renewal, Signature, Status};
use redis::cmd;
use tokio_util::sync::CancellationToken;

use crate::{
    logs::Logs,
    server::Server,
    start,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

const LEASE: Duration = Duration::from_secs(1);

fn broker(server: &Server) -> Arc<RedisBroker> {
    let config = server.config().lease(LEASE);
    Arc::new(RedisBroker::new(config).unwrap())
}

fn run(server: &Server, command: &str) {
    let mut flush = redis::Cmd::new();
    for word in command.split(' ') {
        flush.arg(word);
    }
    flush.exec(&mut server.connection()).unwrap();
}

async fn empty(broker: &RedisBroker) {
    eventually("nothing is waiting or reserved", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn scripts_may_be_flushed_continuously() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let (client, running) = start(&server, &Journal::default(), &CancellationToken::new());
    let tasks = (0..50).map(|_| Signature::new("flaky").arg(1)).collect();
    let mut ids = Vec::new();
    for sent in client.send_batch(tasks).await {
        ids.push(sent.unwrap());
    }
    let done = CancellationToken::new();
    let flushing = std::thread::spawn({
        let (done, mut connection) = (done.clone(), server.connection());
        move || {
            while !done.is_cancelled() {
                cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
                // Gives the server time for other commands.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    done.cancel();
    flushing.join().unwrap();
    running.stop().await.unwrap();
    let other = |line: &String| !line.contains("task will be retried");
    let problems: Vec<String> = logs.problems().into_iter().filter(other).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn an_idle_worker_survives_a_flush() {
    for flush in ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC"] {
        let server = Server::start();
        let broker = broker(&server);
        let client = Client::new(broker.clone());
        let running = Running::start(
            worker(broker, &Journal::default(), &CancellationToken::new()).build(),
            PATIENCE,
        );
        let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
        final_result(&client, &id).await;
        run(&server, flush);
        let id = client.send(Signature::new("add").arg(2).arg(2)).await.unwrap();
        assert_eq!(final_result(&client, &id).await.status, Status::Success);
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn held_deliveries_are_reserved_again_after_a_flush() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let broker = broker(&server);
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let built = worker(broker.clone(), &journal, &gate)
        .concurrency(2)
        .prefetch_multiplier(4)
        .build();
    let running = Running::start(built, PATIENCE);
    let mut ids = Vec::new();
    for number in 0..5 {
        let task = Signature::new("gated").arg(format!("{number}"));
        ids.push(client.send(task).await.unwrap());
    }
    eventually("two tasks run and three wait", async || {
        (broker.depth("celery").await.unwrap().unacked == 5).then_some(())
    })
    .await;
    journal.until(2).await;
    run(&server, "FLUSHALL");
    eventually("all five are reserved again", async || {
        (broker.depth("celery").await.unwrap().unacked == 5).then_some(())
    })
    .await;
    ids.push(client.send(Signature::new("add").arg(1).arg(1)).await.unwrap());
    let binding: bool = cmd("EXISTS")
        .arg("_kombu.binding.celery")
        .query(&mut server.connection())
        .unwrap();
    assert!(binding, "the queue is declared again");
    gate.cancel();
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    empty(&broker).await;
    // Nothing is restored after several renewals either.
    tokio::time::sleep(LEASE * 2).await;
    empty(&broker).await;
    running.stop().await.unwrap();
    assert_eq!(journal.lines().len(), 5, "no task ran twice");
    assert_eq!(logs.problems().len(), 1, "{:#?}", logs.lines());
    assert!(
        logs.problems()[0].contains("messaging.batch.message_count=5"),
        "{:?}",
        logs.problems()
    );
}

#[tokio::test]
async fn a_retry_due_between_a_flush_and_the_next_renewal_is_not_lost() {
    let server = Server::start();
    // The default lease is renewed only every few seconds.
    let (client, running) = start(&server, &Journal::default(), &CancellationToken::new());
    let id = client
        .send(
            Signature::new("flaky")
                .arg(1)
                .countdown(Duration::from_millis(300)),
        )
        .await
        .unwrap();
    let broker = server.broker();
    eventually("the worker holds the task", async || {
        (broker.depth("celery").await.unwrap().unacked == 1).then_some(())
    })
    .await;
    run(&server, "FLUSHALL");
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_after_a_flush_loses_no_messages() {
    let server = Server::start();
    let (dying, live) = (broker(&server), broker(&server));
    let client = Client::new(live.clone());
    let id = client.send(Signature::new("note").arg("x")).await.unwrap();
    server_push(&server, b"{no message}\xff");
    let queues = ["celery".to_owned()];
    let held = dying.receive(&queues, 2).await.unwrap();
    let tags: Vec<_> = held.iter().map(|delivery| delivery.tag.clone()).collect();
    assert_eq!(dying.renew(&tags).await.unwrap(), Renewal::Kept);
    run(&server, "FLUSHALL");
    assert_eq!(dying.renew(&tags).await.unwrap(), Renewal::Lost);
    assert_eq!(
        dying.renew(&tags).await.unwrap(),
        Renewal::Lost,
        "lost until the deliveries are reserved again"
    );
    dying.reserve(&held, &[]).await.unwrap();
    assert_eq!(dying.renew(&tags).await.unwrap(), Renewal::Kept);
    drop(dying);
    let journal = Journal::default();
    let running = Running::start(
        worker(live.clone(), &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    assert_eq!(journal.lines(), ["x again"]);
    empty(&live).await;
    running.stop().await.unwrap();
}

fn server_push(server: &Server, raw: &[u8]) {
    cmd("LPUSH")
        .arg("celery")
        .arg(raw)
        .exec(&mut server.connection())
        .unwrap();
}

#[tokio::test]
async fn a_loss_is_noticed_even_if_a_receive_precedes_the_renewal() {
    let server = Server::start();
    let broker = broker(&server);
    let queues = ["celery".to_owned()];
    server_push(&server, b"{}");
    let first = broker.receive(&queues, 1).await.unwrap();
    run(&server, "FLUSHALL");
    server_push(&server, b"{}");
    let second = broker.receive(&queues, 1).await.unwrap();
    let tags = [first[0].tag.clone(), second[0].tag.clone()];
    assert_eq!(broker.renew(&tags).await.unwrap(), Renewal::Lost);
    broker.reserve(&[first, second].concat(), &[]).await.unwrap();
    assert_eq!(broker.renew(&tags).await.unwrap(), Renewal::Kept);
    assert_eq!(broker.depth("celery").await.unwrap().unacked, 2);
}

fn signatures(count: usize) -> Vec<Signature> {
    (0..count).map(|n| Signature::new("add").arg(n).arg(1)).collect()
}

#[tokio::test]
async fn a_publisher_learns_that_a_flush_lost_its_batches() {
    let server = Server::start();
    let broker = broker(&server);
    let client = Client::new(broker.clone());
    let mut log = PublicationLog::new("one");
    for length in 1..=3 {
        client.send_logged(&mut log, signatures(2)).await.unwrap();
        assert_eq!(log.length(), length);
    }
    let ids = ["one".to_owned(), "other".to_owned()];
    assert_eq!(client.log_lengths(&ids).await.unwrap(), [3, 0]);
    run(&server, "FLUSHALL");
    assert_eq!(client.log_lengths(&ids).await.unwrap(), [0, 0]);
    let lost = client.send_logged(&mut log, signatures(1)).await;
    assert_eq!(lost, Err(LoggedSendError::Lost { kept: 0 }));
    assert_eq!(
        broker.depth("celery").await.unwrap().waiting,
        0,
        "nothing was sent"
    );

    let mut log = PublicationLog::new("other");
    client.send_logged(&mut log, signatures(6)).await.unwrap();
    assert_eq!(broker.depth("celery").await.unwrap().waiting, 6);
    assert_eq!(client.log_lengths(&ids).await.unwrap(), [0, 1]);
}

/// A replica that lagged behind its primary has an older length.
#[tokio::test]
async fn a_publisher_learns_which_batches_a_fail_over_lost() {
    let server = Server::start();
    let broker = broker(&server);
    let client = Client::new(broker.clone());
    let mut log = PublicationLog::new("one");
    for _ in 0..3 {
        client.send_logged(&mut log, signatures(1)).await.unwrap();
    }
    run(&server, "SET celeriac.log.one 2");
    run(&server, "LPOP celery");
    for _ in 0..2 {
        let lost = client.send_logged(&mut log, signatures(1)).await;
        assert_eq!(lost, Err(LoggedSendError::Lost { kept: 2 }));
        assert_eq!(broker.depth("celery").await.unwrap().waiting, 2);
    }
}

/// The reply to a batch may be lost after the server has counted it.
#[tokio::test]
async fn a_log_that_is_longer_than_its_publisher_knows_is_not_lost() {
    let server = Server::start();
    let client = Client::new(broker(&server));
    let mut log = PublicationLog::new("one");
    client.send_logged(&mut log, signatures(1)).await.unwrap();
    run(&server, "SET celeriac.log.one 2");
    client.send_logged(&mut log, signatures(1)).await.unwrap();
    assert_eq!(log.length(), 3);
}
