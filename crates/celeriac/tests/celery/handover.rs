//! Tasks that change hands between Python and Rust: because their worker was killed, or because it was asked to stop.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, RedisBroker, RedisConfig, Signature, TaskContext, TaskOptions, Worker};
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
    a_python_worker_that_stops_leaves_its_tasks_to_rust
    a_rust_worker_that_stops_leaves_its_tasks_to_python
    a_living_rust_workers_task_stays_with_it
}

/// Seconds after which either side takes what the other one held.
const VISIBILITY: u64 = 2;
const PREFORK: [&str; 4] = ["--pool", "prefork", "--concurrency", "1"];

struct Stage {
    server: Server,
    broker: Arc<RedisBroker>,
    /// What Rust has done.
    journal: Journal,
    /// Ends what runs in Rust.
    gate: CancellationToken,
    python: Python,
}

impl Stage {
    fn new(python: Python) -> Self {
        let server = Server::start();
        let config = RedisConfig {
            visibility_timeout: Duration::from_secs(VISIBILITY),
            response_timeout: PATIENCE,
            ..server.config()
        };
        Self {
            broker: Arc::new(RedisBroker::new(config).unwrap()),
            server,
            journal: Journal::default(),
            gate: CancellationToken::new(),
            python,
        }
    }

    /// Sends `work`, which takes so many seconds in Python, and in Rust until the gate opens. Who has it after somebody
    /// else ends it at once.
    async fn send(&self, tasks: &[&str], seconds: f64) {
        let client = Client::new(self.broker.clone());
        for task in tasks {
            let work = Signature::new("work").arg(*task).arg(seconds);
            client.send(work).await.unwrap();
        }
    }

    /// A Rust worker that runs one task after the other.
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
                Ok(())
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

    /// What Python has done.
    fn python_journal(&self) -> Vec<String> {
        redis::cmd("LRANGE")
            .arg("journal")
            .arg(0)
            .arg(-1)
            .query(&mut self.server.connection())
            .unwrap()
    }

    async fn depth(&self, waiting: u64, unacked: u64) {
        eventually(&format!("{waiting} wait, {unacked} are held"), async || {
            let depth = self.broker.depth("celery").await.unwrap();
            ((depth.waiting, depth.unacked) == (waiting, unacked)).then_some(())
        })
        .await;
    }

    /// Waits until nobody has renewed any of so many held tasks for the visibility timeout.
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
    let stage = Stage::new(python);
    let mut python = stage.python(&PREFORK, "1").await;
    stage.send(&["a", "b", "c", "d"], 3600.0).await;
    stage.depth(0, 4).await;
    python.kill().await;
    let rust = stage.rust();
    let mut lines = stage.journal.until(4).await;
    lines.sort();
    assert_eq!(
        lines,
        ["a again", "b again", "c again", "d again"],
        "{}",
        python.name
    );
    stage.depth(0, 0).await;
    rust.stop().await.unwrap();
}

async fn a_killed_rust_workers_tasks_run_in_python(python: Python) {
    let stage = Stage::new(python);
    let journal = journal::Journal::new(&format!("handover-{}", stage.python.celery));
    let mut rust = WorkerProcess::start(&stage.server.url(), "killed", &journal);
    stage.send(&["a", "b"], 3600.0).await;
    stage.depth(0, 2).await;
    rust.kill();
    // A Python worker looks when it starts, and then every 100 s.
    stage.overdue(2).await;
    let python = stage.python(&[], "0").await;
    let mut lines = eventually("both have run", async || {
        Some(stage.python_journal()).filter(|lines| lines.len() >= 4)
    })
    .await;
    lines.sort();
    assert_eq!(lines, ["a begins", "a ends", "b begins", "b ends"]);
    stage.depth(0, 0).await;
    python.stop().await;
}

async fn a_python_worker_that_stops_leaves_its_tasks_to_rust(python: Python) {
    let stage = Stage::new(python);
    let python = stage.python(&PREFORK, "0").await;
    stage.send(&["a", "b", "c", "d"], 3.0).await;
    eventually("one runs", async || {
        (stage.python_journal() == ["a begins"]).then_some(())
    })
    .await;
    // It has acknowledged the one that runs.
    stage.depth(0, 3).await;
    python.stop().await;
    assert_eq!(stage.python_journal(), ["a begins", "a ends"]);
    stage.depth(3, 0).await;
    let rust = stage.rust();
    let mut lines = stage.journal.until(3).await;
    // Celery gives back the oldest first, which turns them around.
    lines.sort();
    assert_eq!(lines, ["b again", "c again", "d again"]);
    stage.depth(0, 0).await;
    rust.stop().await.unwrap();
}

async fn a_rust_worker_that_stops_leaves_its_tasks_to_python(python: Python) {
    let stage = Stage::new(python);
    let rust = stage.rust();
    stage.send(&["a", "b", "c", "d"], 3600.0).await;
    stage.journal.until(1).await;
    stage.depth(0, 4).await;
    rust.begin_stop();
    stage.depth(3, 1).await;
    stage.gate.cancel();
    rust.stop().await.unwrap();
    assert_eq!(stage.journal.lines(), ["a"]);
    let python = stage.python(&[], "0").await;
    let lines = eventually("the rest has run", async || {
        Some(stage.python_journal()).filter(|lines| lines.len() >= 6)
    })
    .await;
    let expected = ["b begins", "b ends", "c begins", "c ends", "d begins", "d ends"];
    assert_eq!(lines, expected, "in their old order");
    stage.depth(0, 0).await;
    python.stop().await;
}

async fn a_living_rust_workers_task_stays_with_it(python: Python) {
    let stage = Stage::new(python);
    let rust = stage.rust();
    stage.send(&["a"], 0.0).await;
    stage.journal.until(1).await;
    // Longer than a task that nobody renews is left alone.
    tokio::time::sleep(Duration::from_secs(2 * VISIBILITY)).await;
    // It looks for overdue tasks before it takes its first one.
    let python = stage.python(&["--queues", "celery,python"], "0").await;
    let client = Client::new(stage.broker.clone());
    let add = Signature::new("add").arg(2).arg(3).queue("python");
    let id = client.send(add).await.unwrap();
    assert_eq!(final_result(&client, &id).await.result, json!(5));
    stage.depth(0, 1).await;
    assert_eq!(stage.python_journal(), Vec::<String>::new(), "{}", python.name);
    stage.gate.cancel();
    stage.depth(0, 0).await;
    assert_eq!(stage.journal.lines(), ["a"]);
    python.stop().await;
    rust.stop().await.unwrap();
}
