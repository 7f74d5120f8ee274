//! Postponed tasks wait in Redis, cost workers nothing, and survive failures of workers and servers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, Client, RedisBroker, Renewal, Signature, Status, TaskId, Timestamp};
use redis::cmd;
use tokio_util::sync::CancellationToken;

use crate::{
    LEASE, broker, drained,
    journal::{Journal, now},
    process::WorkerProcess,
    server::Server,
    support::{self, PATIENCE, Running, eventually, final_result, worker},
};

const FAR: Duration = Duration::from_secs(3600);
const SHORT_LEASE: (&str, &str) = ("TEST_LEASE", "1000");

fn count(server: &Server, command: &str, key: &str) -> usize {
    cmd(command).arg(key).query(&mut server.connection()).unwrap()
}

async fn send(client: &Client, tasks: impl Iterator<Item = Signature>) -> Vec<TaskId> {
    let sent = client.send_batch(tasks.collect()).await;
    sent.into_iter().map(Result::unwrap).collect()
}

async fn postponed(server: &Server, tasks: usize) {
    let deadline = Instant::now() + 4 * PATIENCE;
    while count(server, "ZCARD", "celeriac.later.celery") != tasks {
        assert!(Instant::now() < deadline, "timed out postponing tasks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn task(label: &str) -> Signature {
    Signature::new("work").arg(label).arg(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_free_and_small_while_70000_tasks_wait() {
    const TASKS: usize = 70_000;
    let server = Server::start();
    let client = Client::new(broker(server.url()));
    let journal = Journal::new("idle");
    let mut worker = WorkerProcess::start(&server.url(), "idle", &journal);
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, 2);
    let idle = worker.peak_memory();
    assert!(worker.stop(), "{}", worker.log());
    for _ in 0..TASKS / 1000 {
        let add = || Signature::new("add").arg(1).arg(2).countdown(FAR);
        send(&client, std::iter::repeat_with(add).take(1000)).await;
    }
    let journal = Journal::new("many");
    let mut worker = WorkerProcess::start(&server.url(), "many", &journal);
    postponed(&server, TASKS).await;
    let begin = Instant::now();
    let id = client.send(Signature::new("add").arg(20).arg(22)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, 42);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // An unoptimised program alone takes 16 to 26 MiB, depending on its features.
    let grown = worker.peak_memory() - idle;
    assert!(
        grown < 24 << 10,
        "{grown} KiB more than the {idle} KiB of an idle worker"
    );
    assert!(worker.stop(), "{}", worker.log());
    assert_eq!(count(&server, "HLEN", "unacked"), 0);
    assert_eq!(count(&server, "ZCARD", "unacked_index"), 0);
    assert_eq!(count(&server, "LLEN", "celery"), TASKS);
}

/// One worker is killed while the tasks wait, and one is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn due_tasks_run_once_and_on_time_on_the_remaining_workers() {
    const TASKS: usize = 200;
    let server = Server::start();
    let journal = Journal::new("due");
    let start = |name| WorkerProcess::start_with(&server.url(), name, &journal, &["celery"], &[SHORT_LEASE]);
    let (mut killed, mut stopped) = (start("killed"), start("stopped"));
    let broker = broker(server.url());
    let client = Client::new(broker.clone());
    let due = now() + 5000;
    let eta = Timestamp::from_millisecond(due as i64).unwrap();
    let ids = send(
        &client,
        (0..TASKS).map(|number| task(&format!("{number}")).eta(eta)),
    )
    .await;
    postponed(&server, TASKS).await;
    killed.kill();
    let _left = [start("left"), start("other")];
    assert!(stopped.stop(), "{}", stopped.log());
    assert!(now() < due, "the machine is too slow");
    assert_eq!(count(&server, "LLEN", "celery"), 0, "another worker is alive");
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    drained(&broker).await;
    let runs = journal.runs();
    assert_eq!(runs.len(), TASKS);
    for (label, runs) in runs {
        assert_eq!(runs.len(), 1, "{label}: {runs:?}");
        let late = runs[0].started as i128 - due as i128;
        assert!((0..2000).contains(&late), "{label} ran {late} ms after its time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_worker_to_stop_returns_postponed_tasks_in_the_order_of_their_etas() {
    let server = Server::start();
    let (journal, gate) = (support::Journal::default(), CancellationToken::new());
    let start = || Running::start(worker(broker(server.url()), &journal, &gate).build(), PATIENCE);
    let workers = [start(), start(), start()];
    let client = Client::new(broker(server.url()));
    let note = |seconds| {
        Signature::new("note")
            .arg(format!("{seconds}"))
            .countdown(FAR + Duration::from_secs(seconds))
    };
    send(&client, [3, 1, 2].into_iter().map(note)).await;
    let urgent = note(9).priority(9);
    client.send(urgent).await.unwrap();
    postponed(&server, 3).await;
    eventually("the task with another priority is postponed", async || {
        (count(&server, "HLEN", "unacked") == 4).then_some(())
    })
    .await;
    workers.iter().for_each(Running::begin_stop);
    for worker in workers {
        worker.ended().await.unwrap();
    }
    assert_eq!(count(&server, "HLEN", "unacked"), 0);
    assert_eq!(count(&server, "ZCARD", "unacked_index"), 0);
    assert_eq!(count(&server, "HLEN", "celeriac.later"), 0);
    let messages: Vec<String> = cmd("LRANGE")
        .arg(("celery", 0, -1))
        .query(&mut server.connection())
        .unwrap();
    let labels = messages.iter().map(|raw| {
        let message = celeriac::Message::decode(raw.as_bytes()).unwrap();
        assert!(!message.redelivered(), "no worker had started it");
        message.args[0].clone()
    });
    assert_eq!(
        labels.collect::<Vec<_>>(),
        ["3", "2", "1"],
        "the head is the last"
    );
    assert_eq!(count(&server, "LLEN", "celery\u{6}\u{16}9"), 1);
}

#[tokio::test]
async fn a_due_task_returns_to_its_queue_if_no_worker_of_the_queue_is_left() {
    let server = Server::start();
    let (gone, other) = (broker(server.url()), broker(server.url()));
    let client = Client::new(gone.clone());
    let id = uuid::Uuid::from_u128(7);
    // A second message of the same task.
    for seconds in [60, 0] {
        let eta = timestamp() - Duration::from_secs(11 + seconds);
        let signature = Signature::new("add").arg(1).arg(1).id(id).eta(eta).priority(4);
        client.send(signature).await.unwrap();
    }
    let queues = ["celery".to_owned()];
    let received = gone.receive(&queues, 10).await.unwrap();
    let messages: Vec<_> = received
        .iter()
        .map(|delivery| delivery.message().unwrap())
        .collect();
    let later: Vec<_> = received.iter().zip(&messages).collect();
    assert_eq!(gone.postpone(&later).await.unwrap(), [true, true]);
    assert_eq!(
        gone.postpone(&later[..1]).await.unwrap(),
        [false],
        "no longer held"
    );
    let depth = other.depth("celery").await.unwrap();
    assert_eq!((depth.waiting, depth.unacked), (0, 2));
    assert_eq!(
        other.restore_expired().await.unwrap(),
        0,
        "no dead worker held it"
    );
    let depth = other.depth("celery").await.unwrap();
    assert_eq!((depth.waiting, depth.unacked), (2, 0));
    let again = other.receive(&queues, 10).await.unwrap();
    assert_eq!(again.len(), 2);
    assert!(
        again
            .iter()
            .all(|delivery| !delivery.message().unwrap().redelivered())
    );
}

#[tokio::test]
async fn postponed_tasks_are_received_when_they_are_due_and_not_before() {
    let server = Server::start();
    let (one, other) = (broker(server.url()), broker(server.url()));
    let client = Client::new(one.clone());
    for (label, seconds) in [("far", 3600), ("near", 1)] {
        let note = Signature::new("note")
            .arg(label)
            .countdown(Duration::from_secs(seconds));
        client.send(note).await.unwrap();
    }
    let queues = ["celery".to_owned()];
    let received = one.receive(&queues, 10).await.unwrap();
    let messages: Vec<_> = received
        .iter()
        .map(|delivery| delivery.message().unwrap())
        .collect();
    let later: Vec<_> = received.iter().zip(&messages).collect();
    assert_eq!(one.postpone(&later).await.unwrap(), [true, true]);
    assert!(!one.ack(&received[0], None).await.unwrap(), "no longer held");
    let shown = other.postponed(&queues, 10).await.unwrap();
    assert_eq!(shown[0].raw, received[1].raw, "the earliest first");
    assert_eq!(shown.len(), 2);
    let eta = messages[1].headers.eta.unwrap();
    let due = eventually("a task is due", async || {
        other.receive(&queues, 10).await.unwrap().into_iter().next()
    })
    .await;
    assert!(timestamp() >= eta);
    assert_eq!((due.queue.as_str(), &due.raw), ("celery", &received[1].raw));
    assert!(other.ack(&due, None).await.unwrap());
    assert_eq!(count(&server, "HLEN", "unacked"), 1);
    one.recall(&[messages[0].headers.id.to_string()]).await.unwrap();
    assert_eq!(one.receive(&queues, 10).await.unwrap()[0].raw, received[0].raw);
}

/// The server loses all data while the tasks are postponed.
#[tokio::test]
async fn postponed_tasks_survive_a_server_that_returns_empty() {
    let server = Server::start();
    let holder: Arc<RedisBroker> = broker(server.url());
    let (journal, gate) = (support::Journal::default(), CancellationToken::new());
    let running = Running::start(worker(holder.clone(), &journal, &gate).build(), PATIENCE);
    let client = Client::new(holder.clone());
    let note = |number| {
        Signature::new("note")
            .arg(format!("{number}"))
            .countdown(LEASE * 4)
    };
    let ids = send(&client, (0..20).map(note)).await;
    postponed(&server, 20).await;
    cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
    postponed(&server, 20).await;
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    drained(&holder).await;
    running.stop().await.unwrap();
    assert_eq!(journal.lines().len(), 20);
}

/// A worker remembers a retry as a message that it sent, and again each time it postpones the retry.
#[tokio::test]
async fn a_retry_that_was_postponed_twice_returns_once_to_a_server_that_lost_it() {
    let server = Server::start();
    let holder: Arc<dyn Broker> = broker(server.url());
    let queues = ["celery".to_owned()];
    let receive = async || holder.receive(&queues, 1).await.unwrap().remove(0);
    let client = Client::new(holder.clone());
    let id = client.send(task("retried")).await.unwrap().to_string();
    let first = receive().await;
    let retry = first.message().unwrap().retry(timestamp() + FAR);
    assert!(holder.replace(&first, retry, None).await.unwrap());
    for _ in 0..2 {
        holder.recall(std::slice::from_ref(&id)).await.unwrap();
        let delivery = receive().await;
        let message = delivery.message().unwrap();
        assert_eq!(holder.postpone(&[(&delivery, &message)]).await.unwrap(), [true]);
    }
    for _ in 0..2 {
        cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
        assert_eq!(holder.renew(&[]).await.unwrap(), Renewal::Lost);
        holder.reserve(&[], &[]).await.unwrap();
        assert_eq!(count(&server, "LLEN", "celery"), 1);
    }
    assert_eq!(receive().await.message().unwrap().headers.retries, 1);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the worker under test uses the system clock too"
)]
fn timestamp() -> Timestamp {
    Timestamp::now()
}
