//! Final results: of redelivered tasks, of lost deliveries, and of tasks whose workers died too often.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, DeadLetters, RedisBroker, ResultBackend, ResultMeta, Signature, Status, chord,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    broker, drained,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
    take_over,
};

fn meta(id: &str, status: &str, result: Value) -> ResultMeta {
    serde_json::from_value(json!({"status": status, "result": result, "task_id": id})).unwrap()
}

/// Sends a task that a worker has received and finished, but not acknowledged before it died.
async fn finished_elsewhere(server: &Server, broker: &RedisBroker, task: Signature, result: Value) -> String {
    let client = Client::new(crate::broker(server.url()));
    let id = client.send(task).await.unwrap();
    broker.receive(&["celery".to_owned()], 1).await.unwrap();
    broker.store_result(&meta(&id, "SUCCESS", result)).await.unwrap();
    assert_eq!(take_over(server), 1);
    id.to_string()
}

#[tokio::test]
async fn a_redelivered_task_that_has_ended_is_acknowledged() {
    let server = Server::start();
    let broker = broker(server.url());
    let task = Signature::new("note").arg("x");
    let id = finished_elsewhere(&server, &broker, task, json!("done")).await;
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    drained(&broker).await;
    running.stop().await.unwrap();
    assert_eq!(journal.lines(), Vec::<String>::new());
    let stored = Client::new(broker).result(&id).await.unwrap().unwrap();
    assert_eq!(stored.result, json!("done"));
}

#[tokio::test]
async fn a_worker_may_run_ended_tasks_again_but_keeps_their_success() {
    let server = Server::start();
    let broker = broker(server.url());
    let task = Signature::new("note").arg("x");
    let id = finished_elsewhere(&server, &broker, task, json!("done")).await;
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let again = worker(broker.clone(), &journal, &gate).skip_finished(false);
    let running = Running::start(again.build(), PATIENCE);
    drained(&broker).await;
    running.stop().await.unwrap();
    assert_eq!(journal.lines(), ["x again"]);
    let stored = Client::new(broker).result(&id).await.unwrap().unwrap();
    assert_eq!(stored.result, json!("done"));
}

/// A Python worker stores the result of a chord's part before it counts the part.
#[tokio::test]
async fn an_ended_part_of_a_chord_is_counted_but_does_not_run() {
    let server = Server::start();
    let broker = broker(server.url());
    let client = Client::new(broker.clone());
    let header = (0..2)
        .map(|number| Signature::new("pass").arg(number))
        .collect::<Vec<_>>();
    let result = client
        .apply(chord(header, Signature::new("total")))
        .await
        .unwrap();
    let part = broker.receive(&["celery".to_owned()], 1).await.unwrap().remove(0);
    let id = part.message().unwrap().headers.id;
    broker
        .store_result(&meta(&id, "SUCCESS", json!(40)))
        .await
        .unwrap();
    assert_eq!(take_over(&server), 1);
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    assert_eq!(
        result.wait(PATIENCE).await.unwrap(),
        json!(41),
        "40 is stored, 0 would be its value"
    );
    drained(&broker).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn only_the_holder_of_a_delivery_stores_a_result() {
    let server = Server::start();
    let (slow, quick) = (broker(server.url()), broker(server.url()));
    let client = Client::new(broker(server.url()));
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    let queues = ["celery".to_owned()];
    let lost = slow.receive(&queues, 1).await.unwrap().remove(0);
    assert!(slow.restore(&lost).await.unwrap());
    let held = quick.receive(&queues, 1).await.unwrap().remove(0);
    let of_slow = meta(&id, "SUCCESS", json!("slow"));
    assert!(!slow.ack(&lost, Some(&of_slow)).await.unwrap());
    assert!(
        !slow
            .replace(&lost, lost.message().unwrap(), Some(&of_slow))
            .await
            .unwrap()
    );
    assert!(!slow.restore(&lost).await.unwrap());
    assert_eq!(client.result(&id).await.unwrap(), None);
    let of_quick = meta(&id, "SUCCESS", json!("quick"));
    assert!(quick.ack(&held, Some(&of_quick)).await.unwrap());
    assert_eq!(final_result(&client, &id).await.result, json!("quick"));
    assert!(
        !quick.ack(&held, Some(&of_slow)).await.unwrap(),
        "acknowledged once"
    );
    assert_eq!(final_result(&client, &id).await.result, json!("quick"));
}

/// The task ended at every attempt, but its workers died before they acknowledged it.
#[tokio::test]
async fn a_lost_worker_does_not_replace_a_final_result() {
    let server = Server::start();
    let config = server
        .config()
        .visibility_timeout(Duration::from_millis(20))
        .delivery_limit(1);
    let broker = Arc::new(RedisBroker::new(config).unwrap());
    let client = Client::new(broker.clone());
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(broker.receive(&["celery".to_owned()], 1).await.unwrap().len(), 1);
    broker
        .store_result(&meta(&id, "SUCCESS", json!(2)))
        .await
        .unwrap();
    eventually("the message is buried", async || {
        broker.restore_expired().await.unwrap();
        (broker.dead_letter_count().await.unwrap() == 1).then_some(())
    })
    .await;
    let stored = client.result(&id).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.result), (Status::Success, json!(2)));
}

/// A failed task may be sent again under its id, and then its result counts.
#[tokio::test]
async fn success_is_kept_and_failure_is_replaced_by_a_new_run() {
    let server = Server::start();
    let broker = broker(server.url());
    let client = Client::new(broker.clone());
    for (stored, expected) in [("FAILURE", json!(3)), ("SUCCESS", json!("stored"))] {
        let id = client.send(Signature::new("add").arg(1).arg(2)).await.unwrap();
        broker
            .store_result(&meta(&id, stored, json!("stored")))
            .await
            .unwrap();
        let held = broker.receive(&["celery".to_owned()], 1).await.unwrap().remove(0);
        let result = meta(&id, "SUCCESS", json!(3));
        assert!(broker.ack(&held, Some(&result)).await.unwrap());
        assert_eq!(client.result(&id).await.unwrap().unwrap().result, expected);
    }
}
