//! Tasks that are sent to named exchanges.

use std::sync::Arc;

use celeriac::{Broker, Client, Exchange, Signature, Worker};
use serde_json::json;

use crate::{
    celery::Python,
    patient_broker,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually},
    tasks, with_every_celery,
};

with_every_celery! {
    rust_sends_to_exchanges_of_python_workers
    python_sends_to_exchanges_of_rust_workers
}

/// Routing key of Celery's `Broadcast` queues by default.
const BROADCAST: &str = "celery";

async fn rust_sends_to_exchanges_of_python_workers(python: Python) {
    let server = Server::start();
    let env = [("TEST_CELERY_EXCHANGES", "1")];
    let workers = [
        python.worker(&server.url(), &[], &env).await,
        python.worker(&server.url(), &[], &env).await,
    ];
    let client = Client::new(Arc::new(patient_broker(&server)));
    let add = |exchange, routing_key: &str| {
        let add = Signature::new("add").arg(2).immutable().arg(3);
        add.exchange(exchange, routing_key)
    };
    let topic = add(Exchange::topic("topics"), "a.b");
    let direct = add(Exchange::direct("direct"), "key");
    for signature in [topic.clone(), direct.clone()] {
        let id = client.send(signature).await.unwrap();
        assert_eq!(client.wait(id, PATIENCE).await.unwrap(), 5);
    }
    let routed = client
        .clone()
        .route_to_exchange("a*", &Exchange::topic("topics"), "a.b");
    let id = routed.send(Signature::new("add").arg(4).arg(3)).await.unwrap();
    assert_eq!(client.wait(id, PATIENCE).await.unwrap(), 7);
    let result = client.apply(topic.then(direct)).await.unwrap();
    assert_eq!(result.wait(PATIENCE).await.unwrap(), 5);
    let unbound = client
        .send(add(Exchange::topic("topics"), "b"))
        .await
        .unwrap_err();
    let cause = r#"no queue is bound to the exchange "topics" with the routing key "b""#;
    assert!(unbound.to_string().contains(cause), "{unbound}");

    let note = Signature::new("note").arg("broadcast");
    let note = note.exchange(Exchange::fanout("bcast"), BROADCAST);
    client.send(note).await.unwrap();
    eventually("both workers have run the task", async || {
        let mut length = redis::cmd("LLEN");
        let length: usize = length.arg("journal").query(&mut server.connection()).unwrap();
        (length == 2).then_some(())
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}

async fn python_sends_to_exchanges_of_rust_workers(python: Python) {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(patient_broker(&server));
    let journals = [Journal::default(), Journal::default()];
    let worker = |name: usize| -> Worker {
        tasks::worker(broker.clone(), &journals[name])
            .hostname(format!("celery@{name}"))
            .bind("tq", Exchange::topic("topics"), "a.*")
            .bind("dq", Exchange::direct("direct"), "key")
            .bind("bcast", Exchange::fanout("bcast"), BROADCAST)
            .build()
    };
    let running = [0, 1].map(|name| Running::start(worker(name), PATIENCE));
    let connection = &mut server.connection();
    eventually("both workers listen", async || {
        let subscribers: usize = redis::cmd("PUBLISH")
            .arg("/0.bcast/celery")
            .arg("")
            .query(connection)
            .unwrap();
        let bound: usize = redis::cmd("SCARD")
            .arg("_kombu.binding.bcast")
            .query(connection)
            .unwrap();
        (subscribers == 2 && bound == 2).then_some(())
    })
    .await;
    let mut client = python.client_with(&server.url(), &[("TEST_CELERY_EXCHANGES", "1")]);
    let send = "
topics, direct, bcast = (app.amqp.queues[name].exchange for name in ['tq', 'dq', 'bcast'])
topic = add.apply_async([1, 1], exchange='topics', routing_key='a.b', declare=[topics]).get(timeout=20)
direct = add.apply_async([2, 2], exchange='direct', routing_key='key').get(timeout=20)
chained = add.s(1, 1).set(exchange='topics', routing_key='a.b', declare=[]) | add.s(1).set(exchange='direct', routing_key='key')
note.apply_async(['broadcast'], exchange='bcast', routing_key='celery', declare=[bcast])
flaky.apply_async([1], exchange='bcast', routing_key='celery', declare=[bcast], task_id='flaky')
[topic, direct, chained.apply_async().get(timeout=20)]";
    assert_eq!(
        client.run(send).await,
        json!([2, 4, 3]),
        "Celery {}",
        python.celery
    );
    for journal in &journals {
        assert_eq!(journal.until(1).await, ["broadcast"]);
    }
    let note = Signature::new("note").arg("from Rust");
    let note = note.exchange(Exchange::fanout("bcast"), BROADCAST);
    let client = Client::new(broker.clone());
    client
        .apply(
            Signature::new("add")
                .arg(1)
                .arg(1)
                .queue("dq")
                .on_success(note.immutable()),
        )
        .await
        .unwrap();
    for journal in &journals {
        assert_eq!(journal.until(2).await, ["broadcast", "from Rust"]);
    }
    client.wait("flaky", PATIENCE).await.unwrap();
    for running in running {
        running.stop().await.unwrap();
    }
    let left: Vec<String> = redis::cmd("KEYS").arg("*bcast*").query(connection).unwrap();
    assert_eq!(left, Vec::<String>::new(), "Celery {}", python.celery);
}
