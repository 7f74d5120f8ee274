//! Tasks that move between Python and Rust because their worker was killed or stopped.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, RedisBroker, Signature, TaskContext, TaskError, TaskOptions, Worker};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    celery::{Python, PythonWorker},
    journal,
    process::WorkerProcess,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result},
    with_every_celery,
};

with_every_celery! {
    a_killed_python_workers_tasks_run_in_rust
    a_killed_rust_workers_tasks_run_in_python
    a_stopped_python_worker_returns_its_tasks_to_rust
    a_stopped_rust_worker_returns_its_tasks_to_python
    a_live_rust_workers_task_is_not_restored
}

/// Visibility time-out of both sides, in seconds.
const VISIBILITY: u64 = 2;
const PREFORK: [&str; 4] = ["--pool", "prefork", "--concurrency", "1"];

struct Fixture {
    server: Server,
    broker: Arc<RedisBroker>,
    /// Lines written by Rust tasks.
    journal: Journal,
    /// Lets running Rust tasks finish.
    gate: CancellationToken,
    python: Python,
}

impl Fixture {
    fn new(python: Python) -> Self {
        let server = Server::start();
        let config = server
            .config()
            .visibility_timeout(Duration::from_secs(VISIBILITY))
            .response_timeout(PATIENCE);
        Self {
            broker: Arc::new(RedisBroker::new(config).unwrap()),
            server,
            journal: Journal::default(),
            gate: CancellationToken::new(),
            python,
        }
    }

    /// Sends `work`, which takes the given seconds in Python, and in Rust until the gate opens. A redelivered
    /// task finishes immediately.
    async fn send(&self, tasks: &[&str], seconds: f64) {
        let client = Client::new(self.broker.clone());
        for task in tasks {
            let work = Signature::new("work").arg(*task).arg(seconds);
            client.send(work).await.unwrap();
        }
    }

    /// Starts a Rust worker with a concurrency of one.
    fn rust(&self) -> Running {
        let (journal, gate) = (self.journal.clone(), self.gate.clone());
        let work = move |context: TaskContext, (task, _): (String, f64)| {
            let (journal, gate) = (journal.clone(), gate.clone());
            async move {
                if context.redelivered {
                    journal.write(format!("{task} again"));
                } else {
                    journal.write(task);
                    gate.cancelled().await;
                }
                Ok::<_, TaskError>(())
            }
        };
        let worker = Worker::builder(self.broker.clone()).task("work", TaskOptions::default(), work);
        Running::start(worker.concurrency(1).prefetch_multiplier(10).build(), PATIENCE)
    }

    async fn python(&self, args: &[&str], acks_late: &str) -> PythonWorker {
        let visibility = VISIBILITY.to_string();
        let environment = [
            ("TEST_CELERY_VISIBILITY_TIMEOUT", visibility.as_str()),
            ("TEST_CELERY_ACKS_LATE", acks_late),
        ];
        self.python.worker(&self.server.url(), args, &environment).await
    }

    /// Returns the lines written by Python tasks.
    fn python_journal(&self) -> Vec<String> {
        redis::cmd("LRANGE")
            .arg("journal")
            .arg(0)
            .arg(-1)
            .query(&mut self.server.connection())
            .unwrap()
    }

    async fn depth(&self, waiting: u64, unacked: u64) {
        eventually(&format!("{waiting} tasks wait, {unacked} are held"), async || {
            let depth = self.broker.depth("celery").await.unwrap();
            ((depth.waiting, depth.unacked) == (waiting, unacked)).then_some(())
        })
        .await;
    }

    /// Waits until `count` held tasks were not renewed within the visibility time-out.
    async fn overdue(&self, count: usize) {
        let connection = &mut self.server.connection();
        eventually("the tasks are overdue", async || {
            let (now, _): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
            let mut overdue = redis::cmd("ZCOUNT");
            overdue.arg("unacked_index").arg("-inf").arg(now - VISIBILITY);
            (overdue.query::<usize>(connection).unwrap() == count).then_some(())
        })
        .await;
    }
}

async fn a_killed_python_workers_tasks_run_in_rust(python: Python) {
    let fixture = Fixture::new(python);
    let mut python = fixture.python(&PREFORK, "1").await;
    fixture.send(&["a", "b", "c", "d"], 3600.0).await;
    fixture.depth(0, 4).await;
    python.kill().await;
    let rust = fixture.rust();
    let mut lines = fixture.journal.until(4).await;
    lines.sort();
    assert_eq!(
        lines,
        ["a again", "b again", "c again", "d again"],
        "{}",
        python.name
    );
    fixture.depth(0, 0).await;
    rust.stop().await.unwrap();
}

async fn a_killed_rust_workers_tasks_run_in_python(python: Python) {
    let fixture = Fixture::new(python);
    let journal = journal::Journal::new(&format!("handover-{}", fixture.python.celery));
    let mut rust = WorkerProcess::start(&fixture.server.url(), "killed", &journal);
    fixture.send(&["a", "b"], 3600.0).await;
    fixture.depth(0, 2).await;
    rust.kill();
    // A Python worker restores tasks when it starts, and then every 100 s.
    fixture.overdue(2).await;
    let python = fixture.python(&[], "0").await;
    let mut lines = eventually("both tasks have run", async || {
        Some(fixture.python_journal()).filter(|lines| lines.len() >= 4)
    })
    .await;
    lines.sort();
    assert_eq!(lines, ["a begins", "a ends", "b begins", "b ends"]);
    fixture.depth(0, 0).await;
    python.stop().await;
}

async fn a_stopped_python_worker_returns_its_tasks_to_rust(python: Python) {
    let fixture = Fixture::new(python);
    let python = fixture.python(&PREFORK, "0").await;
    fixture.send(&["a", "b", "c", "d"], 3.0).await;
    eventually("a task runs", async || {
        (fixture.python_journal() == ["a begins"]).then_some(())
    })
    .await;
    // The running task is acknowledged already.
    fixture.depth(0, 3).await;
    python.stop().await;
    assert_eq!(fixture.python_journal(), ["a begins", "a ends"]);
    fixture.depth(3, 0).await;
    let rust = fixture.rust();
    let mut lines = fixture.journal.until(3).await;
    // Celery returns the oldest first, which reverses the order.
    lines.sort();
    assert_eq!(lines, ["b again", "c again", "d again"]);
    fixture.depth(0, 0).await;
    rust.stop().await.unwrap();
}

async fn a_stopped_rust_worker_returns_its_tasks_to_python(python: Python) {
    let fixture = Fixture::new(python);
    let rust = fixture.rust();
    fixture.send(&["a", "b", "c", "d"], 3600.0).await;
    fixture.journal.until(1).await;
    fixture.depth(0, 4).await;
    rust.begin_stop();
    fixture.depth(3, 1).await;
    fixture.gate.cancel();
    rust.stop().await.unwrap();
    assert_eq!(fixture.journal.lines(), ["a"]);
    let python = fixture.python(&[], "0").await;
    let lines = eventually("the remaining tasks have run", async || {
        Some(fixture.python_journal()).filter(|lines| lines.len() >= 6)
    })
    .await;
    let expected = ["b begins", "b ends", "c begins", "c ends", "d begins", "d ends"];
    assert_eq!(lines, expected, "in their original order");
    fixture.depth(0, 0).await;
    python.stop().await;
}

async fn a_live_rust_workers_task_is_not_restored(python: Python) {
    let fixture = Fixture::new(python);
    let rust = fixture.rust();
    fixture.send(&["a"], 0.0).await;
    fixture.journal.until(1).await;
    // Longer than the visibility time-out.
    tokio::time::sleep(Duration::from_secs(2 * VISIBILITY)).await;
    // A Python worker looks for overdue tasks before it receives its first task.
    let python = fixture.python(&["--queues", "celery,python"], "0").await;
    let client = Client::new(fixture.broker.clone());
    let add = Signature::new("add").arg(2).arg(3).queue("python");
    let id = client.send(add).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, json!(5));
    fixture.depth(0, 1).await;
    assert_eq!(fixture.python_journal(), Vec::<String>::new(), "{}", python.name);
    fixture.gate.cancel();
    fixture.depth(0, 0).await;
    assert_eq!(fixture.journal.lines(), ["a"]);
    python.stop().await;
    rust.stop().await.unwrap();
}
