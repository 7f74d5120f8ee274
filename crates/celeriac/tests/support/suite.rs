//! Behaviour of every broker with a worker. `Harness` creates a broker of one kind; the macro runs each
//! behaviour as a separate test.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, Control, PublicationLog, ResultMeta, Settlement, SettlementStatus, Signature, Status,
    TaskId, WaitError,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Journal, PATIENCE, Running, eventually, final_result, worker};

/// Creates brokers of one kind.
pub trait Harness {
    fn broker(&self) -> Arc<dyn Broker>;
    /// Returns a second handle to the same messages, as in another process.
    fn other_broker(&self) -> Arc<dyn Broker>;
    /// Adds a list element, which need not be a valid message.
    fn push_raw(&self, raw: &[u8]);
    /// Time without renewal after which a delivery returns to its queue.
    const LEASE: Duration;
}

/// Sends without waiting, because the in-process broker confirms only when the task has finished.
fn send(client: &Client, signature: Signature) -> String {
    let id = uuid::Uuid::from_u128(rand());
    let (client, signature) = (client.clone(), signature.id(id));
    tokio::spawn(async move { client.send(signature).await.expect("the broker accepts the task") });
    id.to_string()
}

fn rand() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let (high, low) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
    u128::from(high) << 64 | u128::from(low)
}

/// Sends signatures one by one, each when the previous message is in its queue.
async fn send_in_order(broker: &dyn Broker, client: &Client, signatures: Vec<Signature>) {
    for signature in signatures {
        let before = broker.depth("celery").await.unwrap().waiting;
        send(client, signature);
        eventually("the message is in its queue", async || {
            (broker.depth("celery").await.unwrap().waiting > before).then_some(())
        })
        .await;
    }
}

async fn empty(broker: &dyn Broker) {
    eventually("nothing is waiting or reserved", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
}

pub async fn a_task_runs_and_its_result_is_found(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let id = send(&client, Signature::new("add").arg(2).arg(3));
    let meta = final_result(&client, &id).await;
    assert_eq!((meta.status, meta.result), (Status::Success, json!(5)));
    let by_name = send(&client, Signature::new("add").arg(2).kwarg("b", 40));
    assert_eq!(final_result(&client, &by_name).await.result, json!(42));
    let batch = client
        .send_batch((0..20).map(|n| Signature::new("add").arg(n).arg(1)).collect())
        .await;
    for (n, id) in batch.into_iter().enumerate() {
        assert_eq!(final_result(&client, &id.unwrap()).await.result, json!(n + 1));
    }
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn tasks_of_a_logged_batch_run_and_their_states_are_found(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let ids: Vec<TaskId> = (0..3).map(|_| uuid::Uuid::from_u128(rand()).into()).collect();
    let mut states = client.statuses(&ids).await.unwrap();
    assert_eq!(states, [None, None, None]);
    let mut log = PublicationLog::new("log");
    let add = |id: &TaskId| Signature::new("add").id(id).arg(2).arg(3);
    let signatures = ids[..2].iter().map(add).collect();
    client.send_logged(&mut log, signatures).await.unwrap();
    assert_eq!(log.length(), 1);
    assert_eq!(client.log_lengths(&["log".to_owned()]).await.unwrap(), [1]);
    for id in &ids[..2] {
        assert_eq!(final_result(&client, id).await.result, json!(5));
    }
    states = client.statuses(&ids).await.unwrap();
    assert_eq!(states, [Some(Status::Success), Some(Status::Success), None]);
    running.stop().await.unwrap();
}

pub async fn a_running_task_has_the_status_started(harness: impl Harness) {
    let (broker, gate, journal) = (harness.broker(), CancellationToken::new(), Journal::default());
    let client = Client::new(broker.clone());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let id = send(&client, Signature::new("gated").arg("x"));
    let meta = eventually("a first result", async || client.result(&id).await.unwrap()).await;
    assert_eq!(meta.status, Status::Started);
    assert_eq!(meta.result["hostname"], "celery@test");
    gate.cancel();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
}

pub async fn a_task_is_retried_until_it_succeeds(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let id = send(&client, Signature::new("flaky").arg(2));
    let meta = final_result(&client, &id).await;
    assert_eq!((meta.status, meta.result), (Status::Success, json!(2)));
    assert_eq!(
        meta.parent_id.as_deref(),
        Some(id.as_str()),
        "a retried task is its own parent"
    );
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn exhausted_retries_fail_with_the_cause(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let id = send(&client, Signature::new("flaky").arg(1000));
    let meta = final_result(&client, &id).await;
    assert_eq!(meta.status, Status::Failure);
    assert_eq!(
        meta.result,
        json!({"exc_type": "OperationalError", "exc_message": ["connection refused"], "exc_module": "sqlalchemy.exc"})
    );
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn failures_panics_and_wrong_arguments_fail_only_their_task(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let cases: [(Signature, &str, Value); 7] = [
        (Signature::new("broken"), "OperationalError", json!(["permanent"])),
        (Signature::new("panics"), "Panic", json!(["out of luck"])),
        (Signature::new("nope.task"), "NotRegistered", json!(["nope.task"])),
        (
            Signature::new("add").arg("a secret").arg(1),
            "TypeError",
            json!(["add() does not take arguments of types (str, int)"]),
        ),
        (
            Signature::new("add").arg(1),
            "TypeError",
            json!(["add() does not take arguments of types (int)"]),
        ),
        (
            Signature::new("add").arg(1).kwarg("a", 2),
            "TypeError",
            json!(["add() got multiple values for argument 'a'"]),
        ),
        (
            Signature::new("sleeps").time_limit(Duration::from_millis(1500)),
            "TimeLimitExceeded",
            json!([1.5]),
        ),
    ];
    for (signature, exception, message) in cases {
        let id = send(&client, signature);
        let meta = final_result(&client, &id).await;
        assert_eq!(meta.status, Status::Failure, "{exception}");
        assert_eq!(
            (&meta.result["exc_type"], &meta.result["exc_message"]),
            (&json!(exception), &message)
        );
    }
    let soft = send(
        &client,
        Signature::new("sleeps").soft_time_limit(Duration::from_millis(50)),
    );
    assert_eq!(
        final_result(&client, &soft).await.result["exc_type"],
        "SoftTimeLimitExceeded"
    );
    let id = send(&client, Signature::new("add").arg(1).arg(1));
    assert_eq!(
        final_result(&client, &id).await.result,
        json!(2),
        "the worker still runs"
    );
    empty(broker.as_ref()).await;
    running.stop().await.unwrap();
}

pub async fn arguments_are_passed_by_position_or_by_name(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let optional = || Signature::new("optional");
    for (signature, expected) in [
        (optional().arg(1).arg("b").arg(3), json!([1, "b", 3])),
        (
            optional().arg(1).kwarg("third", 3).kwarg("second", "b"),
            json!([1, "b", 3]),
        ),
        (optional().arg(1).kwarg("third", 3), json!([1, null, 3])),
        (optional().kwarg("first", 1), json!([1, null, null])),
        (optional().arg(1), json!([1, null, null])),
    ] {
        let sent = format!("{signature:?}");
        let id = send(&client, signature);
        assert_eq!(client.wait(&id, PATIENCE).await, Ok(expected), "{sent}");
    }
    for signature in [
        optional(),
        optional().kwarg("second", "b"),
        optional().arg(1).arg(2),
        optional().arg(1).kwarg("fourth", 4).kwarg("second", "b"),
        Signature::new("add").arg(1).arg(2).kwarg("c", 3),
        Signature::new("pass").arg("x").kwarg("y", "z"),
    ] {
        let id = send(&client, signature);
        assert_eq!(final_result(&client, &id).await.result["exc_type"], "TypeError");
    }
    running.stop().await.unwrap();
}

pub async fn a_signature_limits_its_retries(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    let flaky = |succeeds_at: u32, limit| Signature::new("flaky").arg(succeeds_at).max_retries(limit);
    let id = send(&client, flaky(5, Some(5)));
    assert_eq!(client.wait(&id, PATIENCE).await, Ok(json!(5)));
    let id = send(&client, flaky(6, None));
    assert_eq!(client.wait(&id, PATIENCE).await, Ok(json!(6)));
    let id = send(&client, flaky(1, Some(0)));
    assert_eq!(final_result(&client, &id).await.status, Status::Failure);
    running.stop().await.unwrap();
}

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

pub async fn an_ignored_result_is_not_stored(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker.clone(), &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    let id = send(&client, Signature::new("note").arg("x").ignore_result(true));
    journal.until(1).await;
    empty(broker.as_ref()).await;
    assert_eq!(client.result(&id).await.unwrap(), None);
    running.stop().await.unwrap();
}

pub async fn a_wait_ends_when_the_task_finishes(harness: impl Harness) {
    let (broker, journal, gate) = (harness.broker(), Journal::default(), CancellationToken::new());
    let client = Client::new(broker.clone());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let id = send(&client, Signature::new("gated").arg("x"));
    journal.until(1).await;
    let short = Duration::from_millis(50);
    assert_eq!(client.wait(&id, short).await, Err(WaitError::TimedOut));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (client, id) = (Client::new(harness.other_broker()), id.clone());
            tokio::spawn(async move { client.wait(&id, PATIENCE).await })
        })
        .collect();
    gate.cancel();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Ok(Value::Null));
    }
    assert_eq!(
        client.wait(&id, PATIENCE).await,
        Ok(Value::Null),
        "the task has finished already"
    );
    let added = send(&client, Signature::new("add").arg(2).arg(3));
    assert_eq!(client.wait(&added, PATIENCE).await, Ok(json!(5)));
    let broken = send(&client, Signature::new("broken"));
    let failed = WaitError::Failed {
        id: broken.as_str().into(),
        exception: crate::support::down("permanent"),
    };
    assert_eq!(client.wait(&broken, PATIENCE).await, Err(failed));
    let past = "2020-01-01T00:00:00Z".parse().unwrap();
    let expired = send(&client, Signature::new("note").arg("x").expires(past));
    let revoked = WaitError::Revoked {
        id: expired.as_str().into(),
        reason: "expired".to_owned(),
    };
    assert_eq!(client.result_of(&expired).wait(PATIENCE).await, Err(revoked));
    running.stop().await.unwrap();
}

pub async fn an_intermediate_state_never_replaces_a_final_state(harness: impl Harness) {
    let broker = harness.broker();
    let meta = |status: &str, result: Value| -> ResultMeta {
        serde_json::from_value(json!({"status": status, "result": result, "task_id": "t"})).unwrap()
    };
    for (stored, expected) in [
        (meta("STARTED", json!(1)), "STARTED"),
        (meta("RETRY", json!(2)), "RETRY"),
        (meta("STARTED", json!(3)), "STARTED"),
        (meta("FAILURE", json!(4)), "FAILURE"),
        (meta("STARTED", json!(5)), "FAILURE"),
        (meta("SUCCESS", json!(6)), "SUCCESS"),
        (meta("RETRY", json!(7)), "SUCCESS"),
    ] {
        broker.store_result(&stored).await.unwrap();
        assert_eq!(
            broker.result(&"t".into()).await.unwrap().unwrap().status.as_str(),
            expected
        );
    }
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

/// Defines one test for each behaviour, on brokers created by `$harness`.
#[macro_export]
macro_rules! broker_suite {
    ($harness:expr) => {
        $crate::broker_suite!(@each suite $harness;
            a_task_runs_and_its_result_is_found
            tasks_of_a_logged_batch_run_and_their_states_are_found
            a_running_task_has_the_status_started
            a_task_is_retried_until_it_succeeds
            exhausted_retries_fail_with_the_cause
            failures_panics_and_wrong_arguments_fail_only_their_task
            arguments_are_passed_by_position_or_by_name
            a_signature_limits_its_retries
            a_task_acknowledged_early_runs_at_most_once
            an_expired_task_is_revoked
            a_countdown_delays_only_its_own_task
            lower_priority_numbers_run_first_and_equal_priorities_in_order
            prefetched_tasks_start_in_order
            a_warm_shutdown_finishes_running_tasks_and_returns_the_rest
            a_task_that_exceeds_the_grace_period_is_returned
            a_dead_workers_task_is_restored
            a_live_workers_task_is_not_restored
            poison_is_buried_and_the_next_message_runs
            an_ignored_result_is_not_stored
            a_wait_ends_when_the_task_finishes
            an_intermediate_state_never_replaces_a_final_state
            running_workers_reply_to_a_ping
        );
    };
    (@each $suite:ident $harness:expr; $($behaviour:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                $crate::$suite::$behaviour($harness).await;
            }
        )*
    };
}
