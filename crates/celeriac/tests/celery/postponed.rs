//! Tasks that a Rust worker has postponed, with and without a running Rust worker.

use std::time::Duration;

use celeriac::{Broker, Client, RedisBroker, Signature};

use crate::{
    celery::Python,
    journal::{Journal, now},
    process::WorkerProcess,
    server::Server,
    support::eventually,
    with_every_celery,
};

with_every_celery! {
    postponed_tasks_of_killed_rust_workers_run_in_python
    tasks_with_a_countdown_from_python_are_postponed_and_run_on_time
}

async fn until_postponed(server: &Server, list: &str) {
    eventually("the task is postponed", async || {
        let key = format!("celeriac.later.{list}");
        let exists: bool = redis::cmd("EXISTS")
            .arg(key)
            .query(&mut server.connection())
            .unwrap();
        exists.then_some(())
    })
    .await;
}

/// The task is overdue when the Python worker starts.
async fn postponed_tasks_of_killed_rust_workers_run_in_python(python: Python) {
    const VISIBILITY: u64 = 30;
    let server = Server::start();
    let config = server
        .config()
        .visibility_timeout(Duration::from_secs(VISIBILITY));
    let broker = std::sync::Arc::new(RedisBroker::new(config).unwrap());
    let client = Client::new(broker.clone());
    let journal = Journal::new(&format!("postponed-{}", python.celery));
    let visibility = VISIBILITY.to_string();
    let environment = [("TEST_VISIBILITY", visibility.as_str())];
    let mut rust = WorkerProcess::start_with(&server.url(), "killed", &journal, &["celery"], &environment);
    let work = Signature::new("work").arg("late").arg(0.0).priority(9);
    client.send(work.countdown(Duration::from_secs(2))).await.unwrap();
    until_postponed(&server, "celery\u{6}\u{16}9").await;
    rust.kill();
    // Restored at most 10.5 s after its `eta`.
    let connection = &mut server.connection();
    eventually("the task is overdue", async || {
        let (now, _): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
        let mut overdue = redis::cmd("ZCOUNT");
        overdue.arg(("unacked_index", 0, now - VISIBILITY));
        (overdue.query::<usize>(connection).unwrap() == 1).then_some(())
    })
    .await;
    let environment = [("TEST_CELERY_VISIBILITY_TIMEOUT", visibility.as_str())];
    let worker = python.worker(&server.url(), &[], &environment).await;
    let lines: Vec<String> = eventually("the task has run", async || {
        let mut range = redis::cmd("LRANGE");
        let lines: Vec<String> = range
            .arg(("journal", 0, -1))
            .query(&mut server.connection())
            .unwrap();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    assert_eq!(lines, ["late begins", "late ends"]);
    eventually("nothing is left", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting + depth.unacked == 0).then_some(())
    })
    .await;
    worker.stop().await;
    // The entry in the sorted set, which Python workers do not know, is harmless.
    let queues = ["celery".to_owned()];
    assert!(broker.receive(&queues, 10).await.unwrap().is_empty());
    let left: usize = redis::cmd("EXISTS")
        .arg("celeriac.later.celery\u{6}\u{16}9")
        .query(connection)
        .unwrap();
    assert_eq!(left, 0);
}

async fn tasks_with_a_countdown_from_python_are_postponed_and_run_on_time(python: Python) {
    let server = Server::start();
    let journal = Journal::new(&format!("on-time-{}", python.celery));
    let mut rust = WorkerProcess::start(&server.url(), "rust", &journal);
    let code = "from app import app; app.send_task('work', ['later', 0], countdown=4)";
    python.output(&server.url(), &["-c", code]).await;
    let sent = now();
    until_postponed(&server, "celery").await;
    let started = eventually("the task runs", async || {
        Some(journal.runs().get("later")?.first()?.started)
    })
    .await;
    let waited = started - sent;
    assert!((2000..5500).contains(&waited), "{waited} ms");
    assert!(rust.stop(), "{}", rust.log());
}
