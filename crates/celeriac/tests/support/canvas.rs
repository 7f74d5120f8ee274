//! Canvases (chains, groups, chords), on every broker.

use std::sync::Arc;

use celeriac::{
    ApplyError, Broker, Canvas, CanvasError, Client, Settlement, SettlementStatus, Signature, Status,
    TaskContext, TaskError, TaskOptions, WaitError, chain, chord, group,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    suite::Harness,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

fn add(numbers: &[i64]) -> Signature {
    Signature::new("add").args(numbers.iter().copied().map(Value::from).collect())
}

fn total() -> Signature {
    Signature::new("total")
}

struct Fixture {
    client: Client,
    broker: Arc<dyn Broker>,
    journal: Journal,
    running: Running,
}

impl Fixture {
    fn new(harness: &impl Harness) -> Self {
        let (broker, journal) = (harness.broker(), Journal::default());
        let worker = worker(broker.clone(), &journal, &CancellationToken::new());
        Self {
            client: Client::new(broker.clone()),
            running: Running::start(worker.build(), PATIENCE),
            broker,
            journal,
        }
    }

    async fn value(&self, canvas: impl Into<Canvas>) -> Result<Value, WaitError> {
        self.client.apply(canvas).await.unwrap().wait(PATIENCE).await
    }

    async fn stop(self) {
        eventually("no message is left", async || {
            let depth = self.broker.depth("celery").await.unwrap();
            (depth.waiting == 0 && depth.unacked == 0).then_some(())
        })
        .await;
        self.running.stop().await.unwrap();
    }
}

pub async fn a_chain_passes_values_on(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let sent = fixture
        .client
        .apply(add(&[1, 2]).then(add(&[3])).then(add(&[4])))
        .await
        .unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!(10)));
    let second = sent.parent().unwrap();
    let first = second.parent().unwrap();
    assert_eq!(second.wait(PATIENCE).await, Ok(json!(6)));
    assert_eq!(first.wait(PATIENCE).await, Ok(json!(3)));
    assert!(first.parent().is_none());
    let meta = final_result(&fixture.client, first.id()).await;
    assert_eq!(
        meta.children,
        json!([[[second.id(), null], null]]),
        "in Celery's format"
    );
    let meta = final_result(&fixture.client, sent.id()).await;
    assert_eq!(meta.parent_id.as_deref(), Some(second.id().as_str()));
    let immutable = chain([add(&[1, 2]), add(&[20, 22]).immutable()]);
    assert_eq!(fixture.value(immutable).await, Ok(json!(42)));
    fixture.stop().await;
}

pub async fn a_group_runs_all_its_tasks(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let tasks: Vec<Canvas> = vec![
        add(&[1, 2]).into(),
        add(&[3, 4]).then(add(&[5])),
        group([add(&[6, 7]), add(&[8, 9])]),
    ];
    let sent = fixture.client.apply(group(tasks)).await.unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!([3, 12, 13, 17])));
    assert_eq!(sent.children().len(), 4);
    let second = final_result(&fixture.client, sent.children()[1].id()).await;
    assert_eq!(second.group_id.as_deref(), Some(sent.id().as_str()));
    let empty = fixture.client.apply(group(Vec::<Signature>::new())).await;
    assert!(
        matches!(empty, Err(ApplyError::Canvas(CanvasError::Empty(_)))),
        "{empty:?}"
    );
    fixture.stop().await;
}

pub async fn a_chord_runs_its_body_once_with_all_values_in_order(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let header = |count: i64| (0..count).map(|number| add(&[number, 1]));
    assert_eq!(fixture.value(chord(header(5), total())).await, Ok(json!(15)));
    assert_eq!(fixture.value(chord(header(1), total())).await, Ok(json!(1)));
    assert_eq!(fixture.value(chord(header(0), total())).await, Ok(json!(0)));
    let values: Vec<i64> = (1..=100).collect();
    let echo = chord(header(100), Signature::new("pass"));
    assert_eq!(
        fixture.value(echo).await,
        Ok(json!(values)),
        "in the order of the header"
    );
    let nested: Vec<Canvas> = vec![
        add(&[1, 1]).then(add(&[1])),
        chord(header(3), total()),
        add(&[10, 10]).into(),
    ];
    let canvas = chord(nested, total()).then(add(&[100]));
    assert_eq!(fixture.value(canvas).await, Ok(json!(129)));
    fixture.stop().await;
}

pub async fn a_group_followed_by_a_task_becomes_a_chord(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let canvas = add(&[1, 1])
        .then(group([add(&[2]), add(&[3])]))
        .then(total())
        .then(add(&[100]));
    let sent = fixture.client.apply(canvas).await.unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!(109)));
    let header = sent.parent().unwrap().parent().unwrap();
    assert_eq!(header.wait(PATIENCE).await, Ok(json!([4, 5])));
    assert_eq!(header.parent().unwrap().wait(PATIENCE).await, Ok(json!(2)));
    let twice = group([add(&[1, 1]), add(&[2, 2])])
        .then(total())
        .then(group([add(&[10]), add(&[20])]))
        .then(total());
    assert_eq!(fixture.value(twice).await, Ok(json!(42)));
    let ends_in_group = add(&[1, 1]).then(group([add(&[2]), add(&[3])]));
    assert_eq!(fixture.value(ends_in_group).await, Ok(json!([4, 5])));
    let two_groups = group([add(&[1, 1]), add(&[2, 2])]).then(group([total(), total()]));
    assert_eq!(fixture.value(two_groups).await, Ok(json!([6, 6])));
    fixture.stop().await;
}

pub async fn a_canvas_that_celery_could_not_send_is_rejected(harness: impl Harness) {
    let client = Client::new(harness.broker());
    let ends_in_group = add(&[1, 1]).then(group([add(&[2]), add(&[3])]));
    let rejected = client.apply(chord([ends_in_group], total())).await;
    assert!(
        matches!(rejected, Err(ApplyError::Canvas(CanvasError::Unsupported(_)))),
        "{rejected:?}"
    );
    let rejected = client.apply(chain(Vec::<Signature>::new())).await;
    assert!(
        matches!(rejected, Err(ApplyError::Canvas(CanvasError::Empty(_)))),
        "{rejected:?}"
    );
    assert_eq!(harness.broker().depth("celery").await.unwrap().waiting, 0);
}

pub async fn a_task_replaces_itself_and_extends_its_chord(harness: impl Harness) {
    let (broker, journal) = (harness.broker(), Journal::default());
    let worker = worker(broker.clone(), &journal, &CancellationToken::new())
        .task(
            "pair",
            TaskOptions::new(),
            async |_: TaskContext, (number,): (i64,)| {
                let pair = group([add(&[number, 1]), add(&[number, 2])]);
                Err::<(), _>(TaskError::replace(pair))
            },
        )
        .task(
            "adds",
            TaskOptions::new(),
            async |context: TaskContext, (number,): (i64,)| {
                context.add_to_chord(add(&[number, 100])).await?;
                Ok::<_, TaskError>(number)
            },
        )
        .task("wrong", TaskOptions::new(), async |_: TaskContext, (): ()| {
            Err::<(), _>(TaskError::replace(chain(Vec::<Signature>::new())))
        });
    let fixture = Fixture {
        client: Client::new(broker.clone()),
        running: Running::start(worker.build(), PATIENCE),
        broker,
        journal,
    };
    let pair = || Signature::new("pair").arg(10);
    assert_eq!(fixture.value(pair()).await, Ok(json!([11, 12])));
    assert_eq!(fixture.value(pair().then(total())).await, Ok(json!(23)));
    let parts = chord([pair(), add(&[1, 1])], Signature::new("pass"));
    assert_eq!(fixture.value(parts).await, Ok(json!([[11, 12], 2])));
    let grows = chord([Signature::new("adds").arg(1), add(&[1, 1])], total());
    assert_eq!(fixture.value(grows).await, Ok(json!(1 + 101 + 2)));
    let wrong = fixture.value(Signature::new("wrong")).await.unwrap_err();
    let WaitError::Failed { exception, .. } = wrong else {
        panic!("{wrong:?}");
    };
    assert_eq!(exception.type_name, "ImproperlyConfigured");
    fixture.stop().await;
}

pub async fn a_result_has_a_state_and_a_type_and_can_be_forgotten_or_revoked(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let unknown = fixture.client.result_of("unknown");
    assert_eq!(unknown.state().await.unwrap(), None);
    let sent = fixture.client.apply(add(&[1, 2]).then(add(&[3]))).await.unwrap();
    assert_eq!(sent.wait_as::<i64>(PATIENCE).await, Ok(6));
    let wrong = sent.wait_as::<String>(PATIENCE).await.unwrap_err();
    assert!(matches!(wrong, WaitError::Type { .. }), "{wrong:?}");
    assert!(wrong.to_string().ends_with("expected a string"), "{wrong}");
    let first = sent.parent().unwrap();
    assert_eq!(sent.state().await.unwrap(), Some(Status::Success));
    assert_eq!(sent.result().await.unwrap().unwrap().result, json!(6));
    sent.forget().await.unwrap();
    assert_eq!(sent.state().await.unwrap(), None);
    assert_eq!(first.state().await.unwrap(), None);
    let sleeps = Signature::new("sleeps").id("asleep");
    let client = fixture.client.clone();
    tokio::spawn(async move { client.apply(sleeps).await });
    let asleep = fixture.client.result_of("asleep");
    eventually("the task runs", async || {
        (asleep.state().await.unwrap() == Some(Status::Started)).then_some(())
    })
    .await;
    eventually("the worker receives the revoke command", async || {
        (asleep.revoke(true).await.unwrap() > 0).then_some(())
    })
    .await;
    let revoked = asleep.wait(PATIENCE).await.unwrap_err();
    assert!(matches!(revoked, WaitError::Revoked { .. }), "{revoked:?}");
    fixture.stop().await;
}

pub async fn callbacks_receive_the_value_and_errbacks_the_id(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let note = || Signature::new("note");
    let linked = Signature::new("pass")
        .arg("value")
        .on_success(note())
        .on_success(note().arg("immutable").immutable())
        .on_error(note().arg("never"));
    fixture.value(linked).await.unwrap();
    let mut lines = fixture.journal.until(2).await;
    lines.sort();
    assert_eq!(lines, ["immutable", "value"]);
    let sent = fixture
        .client
        .apply(
            Signature::new("broken")
                .on_error(note())
                .on_success(note().arg("never")),
        )
        .await
        .unwrap();
    assert!(matches!(sent.wait(PATIENCE).await, Err(WaitError::Failed { .. })));
    assert_eq!(fixture.journal.until(3).await[2], sent.id().as_str());
    let retried = fixture
        .client
        .apply(
            Signature::new("flaky")
                .arg(2)
                .on_success(Signature::new("pass").on_success(note().arg("end").immutable())),
        )
        .await
        .unwrap();
    assert_eq!(retried.wait(PATIENCE).await, Ok(json!(2)));
    assert_eq!(
        fixture.journal.until(4).await[3],
        "end",
        "a retry keeps the callbacks"
    );
    fixture.stop().await;
}

pub async fn a_failure_fails_all_dependent_tasks(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let broken = || Signature::new("broken");
    let note = || Signature::new("note");
    let sent = fixture
        .client
        .apply(broken().then(add(&[1])).then(add(&[2])).on_error(note()))
        .await
        .unwrap();
    let first = sent.parent().unwrap().parent().unwrap();
    assert!(matches!(sent.wait(PATIENCE).await, Err(WaitError::Failed { .. })));
    assert_eq!(
        final_result(&fixture.client, sent.id()).await.status,
        Status::Failure
    );
    assert_eq!(fixture.journal.until(1).await, [first.id().as_str()]);

    let parts: Vec<Canvas> = vec![add(&[1, 1]).into(), broken().then(add(&[1])), add(&[2, 2]).into()];
    let sent = fixture
        .client
        .apply(chord(parts, total()).on_error(note()).then(add(&[1])))
        .await
        .unwrap();
    let body = sent.parent().unwrap();
    let failed = body.wait(PATIENCE).await.unwrap_err();
    let WaitError::Failed { id, exception } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(
        (id.as_str(), exception.type_name.as_str()),
        (body.id().as_str(), "ChordError")
    );
    let failed_part = body.parent().unwrap().children()[1].id().to_owned();
    assert_eq!(
        exception.message,
        format!("Dependency {failed_part} raised OperationalError('permanent')")
    );
    assert_eq!(
        final_result(&fixture.client, sent.id()).await.status,
        Status::Failure
    );
    assert_eq!(
        fixture.journal.until(2).await[1],
        body.id().as_str(),
        "the errback runs for the body"
    );

    let inner: Vec<Canvas> = vec![chord([broken(), broken()], total()), add(&[1, 1]).into()];
    let outer = fixture.client.apply(chord(inner, total())).await.unwrap();
    assert!(matches!(
        outer.wait(PATIENCE).await,
        Err(WaitError::Failed { .. })
    ));
    fixture.stop().await;
}

pub async fn a_revoked_task_revokes_the_rest_of_its_chain_and_fails_its_chord(harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let past = "2020-01-01T00:00:00Z".parse().unwrap();
    let expired = || add(&[1, 1]).expires(past);
    let sent = fixture.client.apply(expired().then(add(&[1]))).await.unwrap();
    assert!(matches!(
        sent.wait(PATIENCE).await,
        Err(WaitError::Revoked { .. })
    ));
    assert_eq!(
        final_result(&fixture.client, sent.id()).await.status,
        Status::Revoked
    );
    let sent = fixture
        .client
        .apply(chord([add(&[1, 1]), expired()], total()))
        .await
        .unwrap();
    assert!(matches!(sent.wait(PATIENCE).await, Err(WaitError::Failed { .. })));
    fixture.stop().await;
}

/// A worker that has lost its delivery publishes nothing, and a part never counts twice.
pub async fn a_part_counts_once_and_only_while_its_delivery_is_held(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let sending =
        tokio::spawn(async move { client.apply(chord([add(&[1, 1]), add(&[2, 2])], total())).await });
    let queues = ["celery".to_owned()];
    let deliveries = eventually("both parts are held", async || {
        let taken = broker.receive(&queues, 2).await.unwrap();
        (taken.len() == 2).then_some(taken)
    })
    .await;
    let part = |position: usize, value: i64| {
        let message = deliveries[position].message().unwrap();
        celeriac::ChordPart::new(
            message.headers.group.unwrap(),
            message.headers.group_index.as_u64(),
            message.headers.id,
            Status::Success,
            json!(value),
        )
    };
    let waiting = celeriac::ChordState::Waiting;
    let record = async |position: usize, value| {
        broker
            .chord_part(&deliveries[position], &part(position, value))
            .await
            .unwrap()
    };
    assert_eq!(record(0, 1).await, waiting);
    assert_eq!(record(0, 2).await, waiting, "a second result of the same part");
    let celeriac::ChordState::Complete { parts, group } = record(1, 4).await else {
        panic!("the header should be complete");
    };
    assert_eq!(group, None);
    let values: Vec<_> = parts.iter().map(|part| part[3].clone()).collect();
    assert_eq!(values, [json!(2), json!(4)]);
    assert_eq!(
        record(0, 2).await,
        waiting,
        "another part holds the claim on the body"
    );
    assert!(
        matches!(record(1, 4).await, celeriac::ChordState::Complete { .. }),
        "the claim is still held"
    );
    let body = part(1, 4);
    let mut settlement = Settlement::default();
    settlement.chords = vec![(body.group, body.task_id)];
    broker.restore(&deliveries[0]).await.unwrap();
    assert_eq!(record(0, 2).await, celeriac::ChordState::NotHeld);
    let settle = async |position: usize| broker.settle(&deliveries[position], &settlement).await.unwrap();
    assert_eq!(settle(0).await, SettlementStatus::NotHeld);
    assert_eq!(settle(1).await, SettlementStatus::Applied);
    assert_eq!(settle(1).await, SettlementStatus::NotHeld, "settled only once");
    let again = broker.receive(&queues, 1).await.unwrap().remove(0);
    let late = broker.chord_part(&again, &part(0, 2)).await.unwrap();
    assert_eq!(late, waiting, "the chord has completed");
    broker.ack(&again, None).await.unwrap();
    sending.await.unwrap().unwrap();
}

/// The worker that records the last part dies before it sends the body.
pub async fn a_chord_completes_after_its_last_worker_dies(harness: impl Harness) {
    let (dead, journal) = (harness.other_broker(), Journal::default());
    let client = Client::new(harness.broker());
    let sending = tokio::spawn(async move {
        let body = total().on_success(Signature::new("note").arg("once").immutable());
        client.apply(chord([add(&[1, 1]), add(&[2, 2])], body)).await
    });
    let queues = ["celery".to_owned()];
    let deliveries = eventually("both parts are held", async || {
        let taken = dead.receive(&queues, 2).await.unwrap();
        (taken.len() == 2).then_some(taken)
    })
    .await;
    for (delivery, value) in deliveries.iter().zip([2, 4]) {
        let headers = delivery.message().unwrap().headers;
        let part = celeriac::ChordPart::new(
            headers.group.unwrap(),
            headers.group_index.as_u64(),
            headers.id,
            Status::Success,
            json!(value),
        );
        let last = dead.chord_part(delivery, &part).await.unwrap();
        assert_eq!(matches!(last, celeriac::ChordState::Complete { .. }), value == 4);
    }
    let worker = worker(harness.broker(), &journal, &CancellationToken::new());
    let running = Running::start(worker.build(), PATIENCE);
    let sent = sending.await.unwrap().unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!(6)));
    let broker = harness.broker();
    eventually("no message is left", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
    assert_eq!(journal.lines(), ["once"]);
    running.stop().await.unwrap();
}

pub async fn invalid_signatures_in_a_message_do_not_stop_the_worker(harness: impl Harness) {
    use base64::Engine;
    let fixture = Fixture::new(&harness);
    let garbage = [
        json!(1),
        json!([1, null, {}]),
        json!({"task": 5}),
        json!([{"task": "add", "options": []}]),
    ];
    for (number, garbage) in garbage.iter().enumerate() {
        let embed = json!({"callbacks": garbage, "errbacks": garbage, "chain": garbage, "chord": garbage});
        let body = json!([["x"], {}, embed]).to_string();
        for task in ["pass", "broken"] {
            let id = format!("{task}-{number}");
            let message = json!({
                "body": base64::engine::general_purpose::STANDARD.encode(&body),
                "content-type": "application/json", "content-encoding": "utf-8",
                "headers": {"task": task, "id": id, "group": id},
                "properties": {"body_encoding": "base64", "delivery_tag": id,
                    "delivery_info": {"exchange": "", "routing_key": "celery"}},
            });
            harness.push_raw(message.to_string().as_bytes());
            let expected = if task == "pass" {
                Status::Success
            } else {
                Status::Failure
            };
            assert_eq!(
                final_result(&fixture.client, &id).await.status,
                expected,
                "{garbage}"
            );
        }
    }
    fixture.stop().await;
}

/// Defines one test for each behaviour, on brokers created by `$harness`.
#[macro_export]
macro_rules! canvas_suite {
    ($harness:expr) => {
        $crate::broker_suite!(@each canvas $harness;
            a_chain_passes_values_on
            a_group_runs_all_its_tasks
            a_chord_runs_its_body_once_with_all_values_in_order
            a_group_followed_by_a_task_becomes_a_chord
            a_canvas_that_celery_could_not_send_is_rejected
            a_task_replaces_itself_and_extends_its_chord
            a_result_has_a_state_and_a_type_and_can_be_forgotten_or_revoked
            callbacks_receive_the_value_and_errbacks_the_id
            a_failure_fails_all_dependent_tasks
            a_revoked_task_revokes_the_rest_of_its_chain_and_fails_its_chord
            a_part_counts_once_and_only_while_its_delivery_is_held
            a_chord_completes_after_its_last_worker_dies
            invalid_signatures_in_a_message_do_not_stop_the_worker
        );
    };
}
