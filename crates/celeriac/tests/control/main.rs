//! Remote control: Celery's command line and Flower inspect and control a Rust worker, and this crate's
//! client does the same with Rust and Python workers. Needs Python interpreters with Celery; see
//! `support/celery.rs`.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]
#![expect(dead_code, reason = "each test crate uses only parts of `support`")]

#[path = "../support/celery.rs"]
mod celery;
#[path = "../support/logs.rs"]
mod logs;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod events;
mod inspect;
mod mailbox;
mod revoke;
mod steer;

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, Control, Reply, Worker};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    celery::Python,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, worker},
};

/// A server with one Rust worker, `celery@test`, with a concurrency of two and eight prefetched tasks.
struct Fixture {
    server: Server,
    broker: Arc<dyn Broker>,
    client: Client,
    journal: Journal,
    gate: CancellationToken,
    running: Running,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with(|worker| worker.build()).await
    }

    async fn start_with(build: impl FnOnce(celeriac::WorkerBuilder) -> Worker) -> Self {
        let server = Server::start();
        let broker: Arc<dyn Broker> = Arc::new(server.broker());
        let (journal, gate) = (Journal::default(), CancellationToken::new());
        let builder = worker(broker.clone(), &journal, &gate).concurrency(2);
        let running = Running::start(build(builder), PATIENCE);
        let fixture = Self {
            client: Client::new(broker.clone()),
            server,
            broker,
            journal,
            gate,
            running,
        };
        eventually("the worker replies", async || {
            let nodes = fixture.control().ping().await.unwrap();
            (nodes == ["celery@test"]).then_some(())
        })
        .await;
        fixture
    }

    fn control(&self) -> Control {
        Control::new(self.broker.clone()).timeout(PATIENCE)
    }

    /// Waits until `workers` workers reply; a Python worker reports that it is ready before it listens.
    async fn until_workers(&self, workers: usize) {
        eventually("every worker replies", async || {
            let nodes = self
                .control()
                .timeout(Duration::from_secs(5))
                .ping()
                .await
                .unwrap();
            (nodes.len() == workers).then_some(())
        })
        .await;
    }

    async fn query(&self, method: &str, arguments: Value) -> Value {
        let replies = query(&self.control(), method, arguments).await;
        let [reply] = <[Reply; 1]>::try_from(replies).unwrap();
        assert_eq!(reply.node, "celery@test");
        reply.content
    }

    /// Returns the output of `celery inspect ... --json` or `celery control ... --json` for the Rust worker.
    async fn celery(&self, python: &Python, arguments: &[&str]) -> Value {
        let url = self.server.url();
        let mut command = vec!["-m", "celery", "-b", &url];
        command.extend(arguments);
        // The destination tells Celery how many replies to expect.
        command.extend(["--destination", "celery@test", "--timeout", "20", "--json"]);
        let printed = python.output(&url, &command).await;
        let mut replies: Value = serde_json::from_str(printed.trim()).unwrap_or_else(|_| panic!("{printed}"));
        // `inspect` prints an object, `control` a list of objects.
        if let Value::Array(list) = &mut replies {
            assert_eq!(list.len(), 1, "{printed}");
            replies = list.remove(0);
        }
        replies["celery@test"].take()
    }

    async fn rate(&self, task: &str, rate: &str) -> Value {
        let mut replies = self.control().rate_limit(task, rate).await.unwrap();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0).content
    }

    async fn stop(self) {
        self.gate.cancel();
        self.running.stop().await.unwrap();
    }
}

async fn query(control: &Control, method: &str, arguments: Value) -> Vec<Reply> {
    let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
    control.inspect(method, arguments).await.unwrap()
}

fn ok(text: &str) -> Value {
    json!({"ok": text})
}
