//! Delivery of messages: order, delays, acknowledgement, shutdown, dead workers and dead letters.

use std::time::Duration;

use celeriac::{Client, Control, Message, Settlement, SettlementStatus, Signature, Status};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Harness, empty, send, send_in_order};
use crate::support::{Journal, PATIENCE, Running, eventually, final_result, worker};

pub async fn a_task_acknowledged_early_runs_at_most_once<H: Harness>(harness: H) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    let client = Client::new(broker.clone());
    let early = |line: &str, succeeds_at: u32| Signature::new("early").arg(line).arg(succeeds_at);
    let first = Running::start(
        worker(broker.clone(), &journal, &gate).build(),
        Duration::from_millis(50),
    );
    let id = send(&client, early("lost", 0));
    journal.until(1).await;
    let depth = broker.depth("celery").await.unwrap();
    assert_eq!(
        (depth.waiting, depth.unacked),
        (0, 0),
        "the delivery is acknowledged while the task runs"
    );
    first.stop().await.unwrap();
    let other = harness.other_broker();
    tokio::time::sleep(H::LEASE * 2).await;
    assert_eq!(other.restore_expired().await.unwrap(), 0);
    assert_eq!(
        other.depth("celery").await.unwrap().waiting,
        0,
        "the lost task is not restored"
    );
    assert_eq!(client.result(&id).await.unwrap().unwrap().status, Status::Started);

    gate.cancel();
    let second = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    let id = send(
        &client,
        early("tried again", 2).on_success(Signature::new("note")),
    );
    assert_eq!(client.wait(&id, PATIENCE).await, Ok(json!("tried again")));
    assert_eq!(
        journal.until(5).await,
        ["lost", "tried again", "tried again", "tried again", "tried again"],
        "three attempts and the callback"
    );
    empty(broker.as_ref()).await;
    second.stop().await.unwrap();

    send(&client, early("taken over", 0));
    let queues = ["celery".to_owned()];
    let taken = eventually("the message is received", async || {
        broker.receive(&queues, 1).await.unwrap().pop()
    })
    .await;
    broker.restore(&taken).await.unwrap();
    assert!(
        !broker.begin(&taken).await.unwrap(),
        "another worker may hold it by now"
    );
    let again = eventually("the message is received again", async || {
        broker.receive(&queues, 1).await.unwrap().pop()
    })
    .await;
    assert!(broker.begin(&again).await.unwrap());
    assert!(
        broker.begin(&again).await.unwrap(),
        "repeating the call is harmless"
    );
    let settlement = Settlement::default();
    assert_eq!(
        broker.settle(&again, &settlement).await.unwrap(),
        SettlementStatus::Applied
    );
    assert_eq!(
        broker.settle(&again, &settlement).await.unwrap(),
        SettlementStatus::NotHeld
    );
}

pub async fn an_expired_task_is_revoked(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker, &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    let past = "2020-01-01T00:00:00Z".parse().unwrap();
    let future = "2120-01-01T00:00:00Z".parse().unwrap();
    let expired = send(&client, Signature::new("note").arg("expired").expires(past));
    let meta = final_result(&client, &expired).await;
    assert_eq!(meta.status, Status::Revoked);
    assert_eq!(meta.result["exc_type"], "TaskRevokedError");
    assert_eq!(meta.result["exc_message"], json!(["expired"]));
    let valid = send(&client, Signature::new("note").arg("valid").expires(future));
    assert_eq!(final_result(&client, &valid).await.status, Status::Success);
    assert_eq!(journal.lines(), ["valid"]);
    running.stop().await.unwrap();
}

pub async fn a_countdown_delays_only_its_own_task(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let worker = worker(broker.clone(), &journal, &CancellationToken::new())
        .concurrency(1)
        .prefetch_multiplier(1);
    let running = Running::start(worker.build(), PATIENCE);
    let begin = std::time::Instant::now();
    let countdown = Duration::from_millis(1500);
    let late = send(&client, Signature::new("note").arg("late").countdown(countdown));
    eventually("the late task is reserved", async || {
        (broker.depth("celery").await.unwrap().unacked == 1).then_some(())
    })
    .await;
    let soon = send(&client, Signature::new("note").arg("soon"));
    final_result(&client, &soon).await;
    final_result(&client, &late).await;
    assert!(begin.elapsed() >= countdown);
    assert_eq!(journal.lines(), ["soon", "late"]);
    running.stop().await.unwrap();
}

pub async fn lower_priority_numbers_run_first_and_equal_priorities_in_order(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let note = |line: &str, priority| Signature::new("note").arg(line).priority(priority);
    let signatures = vec![
        note("last", 9),
        note("third", 6),
        note("second", 3),
        note("first a", 0),
        note("first b", 2),
    ];
    send_in_order(broker.as_ref(), &client, signatures).await;
    let worker = worker(broker, &journal, &CancellationToken::new())
        .concurrency(1)
        .prefetch_multiplier(1);
    let running = Running::start(worker.build(), PATIENCE);
    assert_eq!(
        journal.until(5).await,
        ["first a", "first b", "second", "third", "last"]
    );
    running.stop().await.unwrap();
}

pub async fn prefetched_tasks_start_in_order(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let lines: Vec<String> = (0..40).map(|number| format!("{number}")).collect();
    let signatures = lines
        .iter()
        .map(|line| Signature::new("note").arg(line.as_str()))
        .collect();
    send_in_order(broker.as_ref(), &client, signatures).await;
    let worker = worker(broker, &journal, &CancellationToken::new())
        .concurrency(1)
        .prefetch_multiplier(10);
    let running = Running::start(worker.build(), PATIENCE);
    assert_eq!(journal.until(40).await, lines);
    running.stop().await.unwrap();
}

pub async fn a_warm_shutdown_finishes_running_tasks_and_returns_the_rest(harness: impl Harness) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    let client = Client::new(broker.clone());
    let first = Running::start(
        worker(broker.clone(), &journal, &gate)
            .concurrency(1)
            .prefetch_multiplier(10)
            .build(),
        PATIENCE,
    );
    let running = send(&client, Signature::new("gated").arg("running"));
    journal.until(1).await;
    let far = "2120-01-01T00:00:00Z".parse().unwrap();
    send(&client, Signature::new("note").arg("far").eta(far));
    for line in ["a", "b", "c"] {
        let before = broker.depth("celery").await.unwrap().unacked;
        send(&client, Signature::new("note").arg(line));
        eventually("prefetched", async || {
            (broker.depth("celery").await.unwrap().unacked > before).then_some(())
        })
        .await;
    }
    eventually("all five are held", async || {
        (broker.depth("celery").await.unwrap().unacked == 5).then_some(())
    })
    .await;
    first.begin_stop();
    eventually(
        "waiting tasks are returned while the task still runs",
        async || {
            let depth = broker.depth("celery").await.unwrap();
            (depth.waiting == 4 && depth.unacked == 1).then_some(())
        },
    )
    .await;
    assert_eq!(journal.lines(), ["running"]);
    gate.cancel();
    first.stop().await.unwrap();
    assert_eq!(
        client.result(&running).await.unwrap().unwrap().status,
        Status::Success
    );
    let second = worker(broker, &journal, &gate)
        .concurrency(1)
        .prefetch_multiplier(1);
    let second = Running::start(second.build(), PATIENCE);
    assert_eq!(
        journal.until(4).await[1..],
        ["a again", "b again", "c again"],
        "in their original order"
    );
    second.stop().await.unwrap();
}

pub async fn a_task_that_exceeds_the_grace_period_is_returned(harness: impl Harness) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    let client = Client::new(broker.clone());
    let first = Running::start(
        worker(broker.clone(), &journal, &gate).build(),
        Duration::from_millis(50),
    );
    let id = send(&client, Signature::new("gated").arg("x"));
    journal.until(1).await;
    assert_eq!(first.stop().await, Err(celeriac::WorkerError::Unfinished(1)));
    gate.cancel();
    let second = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    assert_eq!(journal.lines(), ["x", "x again"]);
    second.stop().await.unwrap();
}

pub async fn a_dead_workers_task_is_restored<H: Harness>(harness: H) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let id = send(&client, Signature::new("note").arg("x"));
    // Receives the message and then never renews it.
    let dead = harness.other_broker();
    eventually("the dead worker receives the message", async || {
        (dead.receive(&["celery".to_owned()], 1).await.unwrap().len() == 1).then_some(())
    })
    .await;
    let begin = std::time::Instant::now();
    let running = Running::start(
        worker(broker.clone(), &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    assert!(
        begin.elapsed() + Duration::from_millis(200) >= H::LEASE,
        "not before the lease has expired"
    );
    assert_eq!(journal.lines(), ["x again"]);
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn a_live_workers_task_is_not_restored<H: Harness>(harness: H) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    let client = Client::new(broker.clone());
    let busy = Running::start(
        worker(broker.clone(), &journal, &gate).concurrency(1).build(),
        PATIENCE,
    );
    let id = send(&client, Signature::new("gated").arg("x"));
    journal.until(1).await;
    let other = worker(harness.other_broker(), &journal, &gate).hostname("celery@other");
    let other = Running::start(other.build(), PATIENCE);
    tokio::time::sleep(H::LEASE * 3).await;
    assert_eq!(
        journal.lines(),
        ["x"],
        "the other worker had several chances to take it"
    );
    gate.cancel();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    busy.stop().await.unwrap();
    other.stop().await.unwrap();
    assert_eq!(journal.lines(), ["x"]);
}

pub async fn poison_is_buried_and_the_next_message_runs(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    harness.push_raw(b"not json at all");
    harness.push_raw(b"{\"half\": ");
    harness.push_raw(b"\xff\xfe{}");
    let named = json!({
        "body": "%%%", "content-type": "application/json", "content-encoding": "utf-8",
        "headers": {"task": "add", "id": "poison-1"},
        "properties": {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": "celery"}},
    });
    harness.push_raw(named.to_string().as_bytes());
    let id = send(&client, Signature::new("add").arg(1).arg(1));
    assert_eq!(final_result(&client, &id).await.result, json!(2));
    let letters = eventually("four dead letters", async || {
        let letters = broker.dead_letters(0, 10).await.unwrap();
        Some(letters).filter(|letters| letters.len() == 4)
    })
    .await;
    let reasons: Vec<String> = letters.into_iter().map(|letter| letter.reason).collect();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.starts_with("the body is not base64")),
        "{reasons:?}"
    );
    assert_eq!(
        reasons
            .iter()
            .filter(|reason| reason.starts_with("the message is not a JSON object"))
            .count(),
        3
    );
    let meta = final_result(&client, "poison-1").await;
    assert_eq!(
        meta.result["exc_type"], "InvalidTaskError",
        "a waiting client gets the failure"
    );
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn running_workers_reply_to_a_ping(harness: impl Harness) {
    let broker = harness.broker();
    let control = Control::new(harness.other_broker()).timeout(PATIENCE);
    let start = |name: &str| {
        let worker = worker(broker.clone(), &Journal::default(), &CancellationToken::new()).hostname(name);
        Running::start(worker.build(), PATIENCE)
    };
    let (one, two) = (start("celery@one"), start("celery@two"));
    let expect_nodes = async |expected: &[&str]| {
        eventually("exactly the running workers reply", async || {
            let mut nodes = control.ping().await.unwrap();
            nodes.sort();
            (nodes == expected).then_some(())
        })
        .await;
    };
    expect_nodes(&["celery@one", "celery@two"]).await;
    one.stop().await.unwrap();
    expect_nodes(&["celery@two"]).await;
    two.stop().await.unwrap();
    expect_nodes(&[]).await;
}

pub async fn a_purge_deletes_what_waits_and_nothing_else(harness: impl Harness) {
    let (broker, other) = (harness.broker(), harness.other_broker());
    let client = Client::new(broker.clone());
    let signature = |number: u8| Signature::new("pass").arg(number).priority(number);
    send_in_order(
        broker.as_ref(),
        &client,
        vec![signature(0), signature(9), signature(4)],
    )
    .await;
    let held = broker.receive(&["celery".to_owned()], 1).await.unwrap();
    assert_eq!(held.len(), 1);
    send(&client, Signature::new("pass").arg(1).queue("other"));
    eventually("the message is in its queue", async || {
        (broker.depth("other").await.unwrap().waiting == 1).then_some(())
    })
    .await;
    assert_eq!(other.purge("celery").await.unwrap(), 2);
    assert_eq!(other.purge("celery").await.unwrap(), 0);
    let depth = broker.depth("celery").await.unwrap();
    assert_eq!((depth.waiting, depth.unacked), (0, 1));
    assert_eq!(broker.depth("other").await.unwrap().waiting, 1);
    assert!(broker.ack(&held[0], None).await.unwrap());
}

pub async fn failed_tasks_are_kept_and_run_again_when_they_are_requeued(harness: impl Harness) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    gate.cancel();
    let client = Client::new(broker.clone());
    let start = || {
        let worker = worker(broker.clone(), &journal, &gate).keep_failed(true);
        Running::start(worker.build(), PATIENCE)
    };
    let all_failed = async || {
        eventually("all tasks have failed", async || {
            (broker.dead_letter_count().await.unwrap() == 4).then_some(())
        })
        .await;
        empty(broker.as_ref()).await;
        let letters = broker.dead_letters(0, 10).await.unwrap();
        let mut seen: Vec<(String, String)> = Vec::new();
        for letter in letters {
            assert_eq!(letter.queue, "celery");
            seen.push((letter.task_id.unwrap().to_string(), letter.reason));
        }
        seen.sort();
        seen
    };
    let running = start();
    send(&client, Signature::new("note").arg("succeeds"));
    let flaky = Signature::new("flaky").arg(9);
    let error = "the task failed: OperationalError: connection refused";
    let mut expected = vec![
        (send(&client, flaky.clone()), error.to_owned()),
        (
            send(&client, flaky.on_error(Signature::new("pass"))),
            error.to_owned(),
        ),
        (
            send(&client, Signature::new("early").arg("early").arg(9)),
            error.to_owned(),
        ),
        (
            send(&client, Signature::new("none.such").ignore_result(true)),
            "the task failed: NotRegistered: none.such".to_owned(),
        ),
    ];
    expected.sort();
    assert_eq!(all_failed().await, expected);
    running.stop().await.unwrap();

    let requeued = broker.requeue_where(&|_| true, false).await.unwrap();
    assert_eq!((requeued.requeued.len(), requeued.refused.len()), (4, 0));
    let again = eventually("the messages are received", async || {
        let received = broker.receive(&["celery".to_owned()], 10).await.unwrap();
        (!received.is_empty()).then_some(received)
    })
    .await;
    assert_eq!(again.len(), 4);
    for delivery in &again {
        let message = Message::decode(&delivery.raw).unwrap();
        assert_eq!((message.headers.retries, message.redelivered()), (0, false));
    }
    // As if the worker had died: the failures of the earlier runs do not count.
    broker.restore_batch(&again).await.unwrap();
    let early = |lines: Vec<String>| lines.into_iter().filter(|line| line == "early").count();
    assert_eq!(early(journal.lines()), 4);
    let running = start();
    assert_eq!(all_failed().await, expected);
    assert_eq!(early(journal.lines()), 8);
    running.stop().await.unwrap();
}
