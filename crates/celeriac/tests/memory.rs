//! The in-process broker: the broker suite, and `publish`, which resolves only when the task has finished.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[path = "support/canvas.rs"]
mod canvas;
#[path = "support/suite/mod.rs"]
mod suite;
mod support;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use celeriac::{Broker, BrokerError, Client, MemoryBroker, Signature, Status};
use tokio_util::sync::CancellationToken;

use crate::{
    suite::Harness,
    support::{Journal, PATIENCE, Running, eventually, worker},
};

#[derive(Default)]
struct Memory(OnceLock<Arc<MemoryBroker>>);

impl Memory {
    fn get(&self) -> Arc<MemoryBroker> {
        let make = || Arc::new(MemoryBroker::new(1000).visibility_timeout(Self::LEASE));
        Arc::clone(self.0.get_or_init(make))
    }
}

impl Harness for Memory {
    const LEASE: Duration = Duration::from_secs(1);

    fn broker(&self) -> Arc<dyn Broker> {
        self.get()
    }

    fn other_broker(&self) -> Arc<dyn Broker> {
        self.get()
    }

    fn push_raw(&self, raw: &[u8]) {
        let (broker, raw) = (self.get(), raw.to_vec());
        tokio::spawn(async move { broker.publish_raw("celery", 0, raw).await });
    }
}

broker_suite!(Memory::default());
canvas_suite!(Memory::default());

#[tokio::test]
async fn publishing_resolves_when_the_task_has_finished() {
    let broker = Arc::new(MemoryBroker::new(10));
    let client = Client::new(broker.clone());
    let running = Running::start(
        worker(broker, &Journal::default(), &CancellationToken::new()).build(),
        PATIENCE,
    );
    for (attempts, status) in [(2, Status::Success), (1000, Status::Failure)] {
        let id = client.send(Signature::new("flaky").arg(attempts)).await.unwrap();
        assert_eq!(client.result(&id).await.unwrap().unwrap().status, status);
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_publisher_does_not_stop_its_task() {
    let (broker, journal) = (Arc::new(MemoryBroker::new(10)), Journal::default());
    let client = Client::new(broker.clone());
    let send = tokio::spawn(async move { client.send(Signature::new("note").arg("x")).await });
    eventually("the message is in its queue", async || {
        (broker.depth("celery").await.unwrap().waiting == 1).then_some(())
    })
    .await;
    send.abort();
    assert!(send.await.unwrap_err().is_cancelled());
    let running = Running::start(
        worker(broker, &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    assert_eq!(journal.until(1).await, ["x"]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_broker_rejects_tasks_until_it_has_capacity() {
    let (broker, journal) = (Arc::new(MemoryBroker::new(1)), Journal::default());
    let client = Client::new(broker.clone());
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.send(Signature::new("note").arg("x")).await }
    });
    eventually("the message is in its queue", async || {
        (broker.depth("celery").await.unwrap().waiting == 1).then_some(())
    })
    .await;
    let error = client.send(Signature::new("note").arg("y")).await.unwrap_err();
    assert_eq!(error.source, BrokerError::Full { capacity: 1 });
    let running = Running::start(
        worker(broker, &journal, &CancellationToken::new()).build(),
        PATIENCE,
    );
    first.await.unwrap().unwrap();
    client.send(Signature::new("note").arg("y")).await.unwrap();
    assert_eq!(journal.lines(), ["x", "y"]);
    running.stop().await.unwrap();
}
