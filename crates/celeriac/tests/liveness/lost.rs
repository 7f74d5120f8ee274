//! Running tasks whose messages other workers have taken over.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, Exception, RedisBroker, Signature, Status, TaskContext, TaskError, TaskOptions, Worker,
    WorkerBuilder,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    broker, drained,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result},
    take_over,
};

struct Fixture {
    server: Server,
    broker: Arc<RedisBroker>,
    client: Client,
    journal: Journal,
    gate: CancellationToken,
}

impl Fixture {
    fn new() -> Self {
        let server = Server::start();
        let broker = broker(server.url());
        Self {
            client: Client::new(broker.clone()),
            server,
            broker,
            journal: Journal::default(),
            gate: CancellationToken::new(),
        }
    }

    /// Returns a worker whose task `gated` writes its start, waits for the gate on its first delivery, and
    /// writes its end.
    fn worker(&self, options: TaskOptions) -> WorkerBuilder {
        let (journal, gate) = (self.journal.clone(), self.gate.clone());
        Worker::builder(self.broker.clone()).task("gated", options, move |context: TaskContext, (): ()| {
            let (journal, gate) = (journal.clone(), gate.clone());
            async move {
                let attempt = if context.redelivered { "second" } else { "first" };
                journal.write(format!("{attempt} begins"));
                if !context.redelivered {
                    gate.cancelled().await;
                }
                journal.write(format!("{attempt} ends"));
                Ok::<_, TaskError>(attempt)
            }
        })
    }

    /// Takes over the message of the running task.
    async fn lose(&self) {
        self.journal.until(1).await;
        assert_eq!(take_over(&self.server), 1);
        // The worker receives the message again.
        self.journal.until(3).await;
    }
}

#[tokio::test]
async fn a_running_task_is_cancelled_when_its_message_is_taken_over() {
    let fixture = Fixture::new();
    let running = Running::start(fixture.worker(TaskOptions::new()).build(), PATIENCE);
    let id = fixture.client.send(Signature::new("gated")).await.unwrap();
    fixture.lose().await;
    let meta = final_result(&fixture.client, &id).await;
    assert_eq!((meta.status, meta.result), (Status::Success, json!("second")));
    drained(&fixture.broker).await;
    // The first attempt does not wait for the gate any more, so it does not delay the worker's end.
    running.stop().await.unwrap();
    assert_eq!(
        fixture.journal.lines(),
        ["first begins", "second begins", "second ends"]
    );
}

#[tokio::test]
async fn a_task_may_finish_without_a_result_when_its_message_is_taken_over() {
    let fixture = Fixture::new();
    let options = TaskOptions::new().cancel_when_lost(false);
    let running = Running::start(fixture.worker(options).build(), PATIENCE);
    let id = fixture.client.send(Signature::new("gated")).await.unwrap();
    fixture.lose().await;
    final_result(&fixture.client, &id).await;
    fixture.gate.cancel();
    running.stop().await.unwrap();
    assert_eq!(
        fixture.journal.lines(),
        ["first begins", "second begins", "second ends", "first ends"]
    );
    let meta = fixture.client.result(&id).await.unwrap().unwrap();
    assert_eq!(meta.result, json!("second"), "the first attempt stores nothing");
}

#[tokio::test]
async fn a_waiting_task_is_dropped_when_its_message_is_taken_over() {
    let fixture = Fixture::new();
    let running = Running::start(
        fixture.worker(TaskOptions::new()).concurrency(1).build(),
        PATIENCE,
    );
    let later = Signature::new("gated").countdown(Duration::from_secs(3600));
    for task in [Signature::new("gated"), later, Signature::new("gated")] {
        fixture.client.send(task).await.unwrap();
    }
    eventually("the worker holds all three", async || {
        (fixture.broker.depth("celery").await.unwrap().unacked == 3).then_some(())
    })
    .await;
    // Lost to a worker for other queues.
    let mut connection = fixture.server.connection();
    redis::pipe()
        .del("unacked")
        .del("unacked_index")
        .exec(&mut connection)
        .unwrap();
    let next = Signature::new("gated").id(uuid::Uuid::from_u128(7));
    let id = fixture.client.send(next).await.unwrap();
    // Slot and room are free again, although the gate stays closed.
    fixture.journal.until(2).await;
    fixture.gate.cancel();
    assert_eq!(final_result(&fixture.client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
    assert_eq!(
        fixture.journal.lines(),
        ["first begins", "first begins", "first ends"]
    );
    let held: usize = redis::cmd("HLEN").arg("unacked").query(&mut connection).unwrap();
    assert_eq!(held, 0);
}

#[tokio::test]
async fn blocking_code_learns_that_its_message_was_taken_over() {
    let fixture = Fixture::new();
    let journal = fixture.journal.clone();
    let run = move |context: TaskContext, (): ()| {
        let journal = journal.clone();
        async move {
            let redelivered = context.redelivered;
            let code = move |context: TaskContext| {
                journal.write("begins");
                while !redelivered && !context.is_stopped() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                journal.write("ends");
            };
            context.run_blocking(code).await;
            Ok::<_, TaskError>(())
        }
    };
    let worker = Worker::builder(fixture.broker.clone()).task("blocks", TaskOptions::new(), run);
    let running = Running::start(worker.build(), PATIENCE);
    let id = fixture.client.send(Signature::new("blocks")).await.unwrap();
    fixture.journal.until(1).await;
    assert_eq!(take_over(&fixture.server), 1);
    assert_eq!(final_result(&fixture.client, &id).await.status, Status::Success);
    fixture.journal.until(4).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_in_blocking_code_fails_the_task() {
    let fixture = Fixture::new();
    let run = async |context: TaskContext, (): ()| {
        context
            .run_blocking(|_| assert!(std::hint::black_box(false), "no"))
            .await;
        Ok::<_, TaskError>(())
    };
    let worker = Worker::builder(fixture.broker.clone()).task("panics", TaskOptions::new(), run);
    let running = Running::start(worker.build(), PATIENCE);
    let id = fixture.client.send(Signature::new("panics")).await.unwrap();
    let meta = final_result(&fixture.client, &id).await;
    assert_eq!(
        (meta.status, &meta.result["exc_type"]),
        (Status::Failure, &json!("Panic"))
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_task_is_not_retried() {
    let fixture = Fixture::new();
    let (journal, gate) = (fixture.journal.clone(), fixture.gate.clone());
    let run = move |context: TaskContext, (): ()| {
        let (journal, gate) = (journal.clone(), gate.clone());
        async move {
            journal.write(if context.redelivered { "second" } else { "first" });
            if !context.redelivered {
                gate.cancelled().await;
                return Err(TaskError::retry(Exception::new("OSError", "again")));
            }
            Ok(context.retries)
        }
    };
    let options = TaskOptions::new().cancel_when_lost(false);
    let worker = Worker::builder(fixture.broker.clone()).task("retries", options, run);
    let running = Running::start(worker.build(), PATIENCE);
    let id = fixture.client.send(Signature::new("retries")).await.unwrap();
    fixture.journal.until(1).await;
    assert_eq!(take_over(&fixture.server), 1);
    assert_eq!(final_result(&fixture.client, &id).await.result, json!(0));
    fixture.gate.cancel();
    running.stop().await.unwrap();
    drained(&fixture.broker).await;
    assert_eq!(fixture.journal.lines(), ["first", "second"]);
    assert_eq!(
        fixture.client.result(&id).await.unwrap().unwrap().status,
        Status::Success
    );
}

/// Each worker renews and settles only its own deliveries.
#[tokio::test]
async fn two_workers_may_share_a_broker_handle() {
    let fixture = Fixture::new();
    let build = || {
        let worker = fixture.worker(TaskOptions::new());
        worker.concurrency(1).prefetch_multiplier(1).build()
    };
    let one = Running::start(build(), PATIENCE);
    let other = Running::start(build(), PATIENCE);
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(fixture.client.send(Signature::new("gated")).await.unwrap());
    }
    fixture.journal.until(2).await;
    let leases: usize = redis::cmd("ZCARD")
        .arg("celeriac.leases")
        .query(&mut fixture.server.connection())
        .unwrap();
    assert_eq!(leases, 2);
    // Both notice a flush, and reserve their own deliveries again.
    redis::cmd("FLUSHALL")
        .exec(&mut fixture.server.connection())
        .unwrap();
    eventually("both deliveries are reserved again", async || {
        (fixture.broker.depth("celery").await.unwrap().unacked == 2).then_some(())
    })
    .await;
    fixture.gate.cancel();
    for id in &ids {
        assert_eq!(final_result(&fixture.client, id).await.status, Status::Success);
    }
    drained(&fixture.broker).await;
    one.stop().await.unwrap();
    other.stop().await.unwrap();
    assert_eq!(fixture.journal.lines().len(), 4);
}
