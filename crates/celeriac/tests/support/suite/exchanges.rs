//! Tasks that are sent to default queues and named exchanges.

use celeriac::{Client, Exchange, Signature};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Harness, empty, send};
use crate::support::{Journal, PATIENCE, Running, eventually, worker};

pub async fn a_client_sends_to_its_default_queue_unless_a_signature_names_one(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone()).default_queue("reports");
    send(&client, Signature::new("pass").arg(1));
    send(&client, Signature::new("pass").arg(2).queue("other"));
    let chained = Signature::new("pass").arg(3).then(Signature::new("pass"));
    let apply = client.clone();
    tokio::spawn(async move { apply.apply(chained).await });
    for (queue, expected) in [("reports", 2), ("other", 1), ("celery", 0)] {
        eventually(&format!("the messages are in {queue}"), async || {
            (broker.depth(queue).await.unwrap().waiting == expected).then_some(())
        })
        .await;
    }
}

pub async fn an_exchange_sends_to_the_queues_that_are_bound_to_it(harness: impl Harness) {
    let broker = harness.broker();
    let client = Client::new(broker.clone());
    let journals = [Journal::default(), Journal::default()];
    let gate = CancellationToken::new();
    gate.cancel();
    let running = [0, 1].map(|index| {
        let worker = worker(broker.clone(), &journals[index], &gate)
            .hostname(format!("celery@{index}"))
            .bind(format!("q{index}"), Exchange::topic("topics"), "a.*")
            .bind(format!("q{index}"), Exchange::direct("direct"), index.to_string())
            .bind("broadcasts", Exchange::fanout("fan-out"), "");
        Running::start(worker.build(), PATIENCE)
    });
    let note = |line: &str| Signature::new("note").arg(line);
    let to =
        |exchange: fn(&'static str) -> Exchange, name, key: &str| note(key).exchange(exchange(name), key);
    eventually("both workers have bound their queues", async || {
        let sent = client.send(to(Exchange::direct, "direct", "1")).await;
        sent.is_ok().then_some(())
    })
    .await;
    journals[1].until(1).await;
    send(&client, to(Exchange::topic, "topics", "a.b"));
    assert_eq!(journals[0].until(1).await, ["a.b"]);
    assert_eq!(journals[1].until(2).await, ["1", "a.b"]);
    let error = client
        .send(to(Exchange::topic, "topics", "a.b.c"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no queue is bound"), "{error}");

    eventually("both workers listen", async || {
        let listeners = broker.broadcast("fan-out", "", "{}".to_owned()).await.unwrap();
        (listeners == 2).then_some(())
    })
    .await;
    let first = Signature::new("add")
        .arg(1)
        .arg(1)
        .exchange(Exchange::direct("direct"), "0");
    let then = note("all").immutable().exchange(Exchange::fanout("fan-out"), "");
    let id = send(&client, first.on_success(then));
    assert_eq!(client.wait(&id, PATIENCE).await, Ok(json!(2)));
    assert_eq!(journals[0].until(2).await, ["a.b", "all"]);
    assert_eq!(journals[1].until(3).await, ["1", "a.b", "all"]);

    // A retry goes only to the queue in which its worker found the task, also if it was acknowledged early.
    let early = Signature::new("early").arg("early").arg(1);
    send(&client, early.exchange(Exchange::topic("topics"), "a.b"));
    journals[0].until(4).await;
    journals[1].until(5).await;
    for queue in ["q0", "q1"] {
        eventually("nothing is waiting or reserved", async || {
            let depth = broker.depth(queue).await.unwrap();
            (depth.waiting == 0 && depth.unacked == 0).then_some(())
        })
        .await;
    }
    for running in running {
        running.stop().await.unwrap();
    }
    assert_eq!(journals[0].lines(), ["a.b", "all", "early", "early"]);
    assert_eq!(journals[1].lines(), ["1", "a.b", "all", "early", "early"]);
    empty(broker.as_ref()).await;
}
