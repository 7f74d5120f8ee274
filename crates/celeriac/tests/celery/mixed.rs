//! Python and Rust workers on the same queue.

use std::{collections::HashMap, sync::Arc};

use celeriac::{Broker, Client, Signature, TaskContext, TaskError, TaskOptions, Worker};

use crate::{
    celery::Python,
    patient_broker,
    server::Server,
    support::{PATIENCE, Running, eventually},
    with_every_celery,
};

with_every_celery! {
    each_task_runs_once_on_either_side
}

const TASKS: usize = 10_000;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the task's own connection, not the broker's"
)]
async fn each_task_runs_once_on_either_side(python: Python) {
    let server = Server::start();
    let connection = &mut server.connection();
    let broker = Arc::new(patient_broker(&server));
    let store = redis::Client::open(server.url()).unwrap();
    let store = store.get_multiplexed_async_connection().await.unwrap();
    let count = move |_: TaskContext, (number,): (u64,)| {
        let mut store = store.clone();
        async move {
            let mut counts = redis::pipe();
            counts.hincr("runs", number, 1).hincr("sides", "rust", 1);
            counts.exec_async(&mut store).await.unwrap();
            Ok::<_, TaskError>(())
        }
    };
    let pool = ["--pool", "prefork", "--concurrency", "2"];
    let python_worker = python.worker(&server.url(), &pool, &[]).await;
    let rust_worker = Worker::builder(broker.clone()).task("count", TaskOptions::default(), count);
    let rust_worker = Running::start(rust_worker.build(), PATIENCE);
    let client = Client::new(broker.clone());
    for first in (0..TASKS).step_by(500) {
        let signatures =
            (first..first + 500).map(|number| Signature::new("count").arg(number).ignore_result(true));
        for sent in client.send_batch(signatures.collect()).await {
            sent.unwrap();
        }
        // In batches: otherwise the faster side would receive all tasks.
        eventually("most messages are received", async || {
            (broker.depth("celery").await.unwrap().waiting < 50).then_some(())
        })
        .await;
    }
    eventually("all tasks have run", async || {
        let depth = broker.depth("celery").await.unwrap();
        ((depth.waiting, depth.unacked) == (0, 0)).then_some(())
    })
    .await;
    // Celery acknowledges before a task starts; a warm shutdown finishes running tasks.
    python_worker.stop().await;
    rust_worker.stop().await.unwrap();
    let runs: HashMap<String, u32> = redis::cmd("HGETALL").arg("runs").query(connection).unwrap();
    let sides: HashMap<String, u32> = redis::cmd("HGETALL").arg("sides").query(connection).unwrap();
    assert_eq!(runs.len(), TASKS, "Celery {}: {sides:?}", python.celery);
    let not_once: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
    assert!(not_once.is_empty(), "Celery {}: {not_once:?}", python.celery);
    for side in ["python", "rust"] {
        assert!(
            sides.get(side).is_some_and(|runs| *runs > 100),
            "Celery {}: {sides:?}",
            python.celery
        );
    }
}
