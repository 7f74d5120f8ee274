//! Runs of tasks, and the results that their callers find.

use std::time::Duration;

use celeriac::{Client, PublicationLog, ResultMeta, Signature, Status, TaskId, WaitError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Harness, empty, rand, send};
use crate::support::{Journal, PATIENCE, Running, eventually, final_result, worker};

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
