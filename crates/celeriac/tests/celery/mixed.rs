//! Python and Rust workers on one queue: they share the work, and either gives back what a killed one of the other
//! kind held.

use std::{collections::HashMap, sync::Arc, time::Duration};

use celeriac::{Broker, Client, RedisBroker, RedisConfig, Signature, TaskContext, TaskOptions, Worker};

use crate::{
    celery::Python,
    journal::Journal,
    process::WorkerProcess,
    server::Server,
    support::{PATIENCE, Running, eventually},
    with_every_celery,
};

with_every_celery! {
    every_task_runs_once_on_one_of_both_sides
    a_killed_python_workers_tasks_run_in_rust
    a_killed_rust_workers_tasks_run_in_python
}

const TASKS: usize = 10_000;

async fn every_task_runs_once_on_one_of_both_sides(python: Python) {
    let server = Server::start();
    let connection = &mut server.connection();
    // Nothing crashes here, so nothing needs to wait for the disk.
    redis::cmd("CONFIG")
        .arg(&["SET", "appendfsync", "no"])
        .exec(connection)
        .unwrap();
    let broker = Arc::new(server.broker());
    let store = redis::Client::open(server.url()).unwrap();
    let store = store.get_multiplexed_async_connection().await.unwrap();
    let count = move |_: TaskContext, (number,): (u64,)| {
        let mut store = store.clone();
        async move {
            let mut counts = redis::pipe();
            counts.hincr("runs", number, 1).hincr("sides", "rust", 1);
            counts.exec_async(&mut store).await.unwrap();
            Ok(())
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
        // Not all at once: whoever is quicker would have it all.
        eventually("most of it is taken", async || {
            (broker.depth("celery").await.unwrap().waiting < 50).then_some(())
        })
        .await;
    }
    eventually("all have run", async || {
        let depth = broker.depth("celery").await.unwrap();
        ((depth.waiting, depth.unacked) == (0, 0)).then_some(())
    })
    .await;
    // Celery acknowledges when it begins; a warm shutdown ends what runs.
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

/// Seconds after which either side takes what the other one held.
const VISIBILITY: u64 = 2;

fn broker(server: &Server) -> RedisBroker {
    let visibility_timeout = Duration::from_secs(VISIBILITY);
    RedisBroker::new(RedisConfig {
        visibility_timeout,
        ..server.config()
    })
    .unwrap()
}

/// Five tasks that would run for an hour in the hands that take them first.
async fn send(server: &Server) -> Vec<String> {
    let client = Client::new(Arc::new(server.broker()));
    let tasks: Vec<String> = (0..5).map(|number| format!("t{number}")).collect();
    for task in &tasks {
        let work = Signature::new("work").arg(task.as_str()).arg(3600.0);
        client.send(work).await.unwrap();
    }
    tasks
}

async fn all_held(broker: &RedisBroker) {
    eventually("the worker holds all tasks", async || {
        (broker.depth("celery").await.unwrap().unacked == 5).then_some(())
    })
    .await;
}

async fn a_killed_python_workers_tasks_run_in_rust(python: Python) {
    let server = Server::start();
    let visibility = VISIBILITY.to_string();
    let environment = [
        ("TEST_CELERY_VISIBILITY_TIMEOUT", visibility.as_str()),
        ("TEST_CELERY_ACKS_LATE", "1"),
    ];
    let pool = ["--pool", "prefork", "--concurrency", "2"];
    let mut python_worker = python.worker(&server.url(), &pool, &environment).await;
    let tasks = send(&server).await;
    let broker = broker(&server);
    all_held(&broker).await;
    python_worker.kill().await;
    let journal = crate::support::Journal::default();
    let done = journal.clone();
    let work = move |context: TaskContext, (task, _): (String, f64)| {
        let done = done.clone();
        async move {
            done.write(format!("{task} {}", context.redelivered));
            Ok(())
        }
    };
    let rust_worker = Worker::builder(Arc::new(broker)).task("work", TaskOptions::default(), work);
    let running = Running::start(rust_worker.concurrency(1).build(), PATIENCE);
    let mut lines = journal.until(tasks.len()).await;
    lines.sort();
    let expected: Vec<String> = tasks.iter().map(|task| format!("{task} true")).collect();
    assert_eq!(lines, expected, "Celery {}", python.celery);
    running.stop().await.unwrap();
}

async fn a_killed_rust_workers_tasks_run_in_python(python: Python) {
    let server = Server::start();
    let journal = Journal::new(&format!("restore-{}", python.celery));
    let mut rust_worker = WorkerProcess::start(&server.url(), "killed", &journal);
    let tasks = send(&server).await;
    all_held(&broker(&server)).await;
    rust_worker.kill();
    // A Python worker looks when it starts, and then every 100 s.
    let connection = &mut server.connection();
    eventually("the tasks are overdue", async || {
        let (now, _): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
        let overdue: usize = redis::cmd("ZCOUNT")
            .arg("unacked_index")
            .arg("-inf")
            .arg(now - VISIBILITY)
            .query(connection)
            .unwrap();
        (overdue == tasks.len()).then_some(())
    })
    .await;
    let visibility = VISIBILITY.to_string();
    let environment = [("TEST_CELERY_VISIBILITY_TIMEOUT", visibility.as_str())];
    let python_worker = python.worker(&server.url(), &[], &environment).await;
    let mut lines = eventually("all have run", async || {
        let lines: Vec<String> = redis::cmd("LRANGE")
            .arg("journal")
            .arg(0)
            .arg(-1)
            .query(connection)
            .unwrap();
        (lines.len() >= 2 * tasks.len()).then_some(lines)
    })
    .await;
    lines.sort();
    let expected: Vec<String> = tasks
        .iter()
        .flat_map(|task| [format!("{task} begins"), format!("{task} ends")])
        .collect();
    assert_eq!(lines, expected, "Celery {}", python.celery);
    python_worker.stop().await;
}
