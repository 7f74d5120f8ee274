//! Remote control: Celery's own command line and Flower look at and steer a Rust worker, our client does so with Rust
//! and Python workers. Needs Python interpreters with Celery, see `support/celery.rs`.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]
#![expect(
    dead_code,
    reason = "every test crate uses a part of what they share in `support`"
)]

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

/// A server with one Rust worker, `celery@test`, two tasks at a time, prefetching eight.
struct Stage {
    server: Server,
    broker: Arc<dyn Broker>,
    client: Client,
    journal: Journal,
    gate: CancellationToken,
    running: Running,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(|worker| worker.build()).await
    }

    async fn set_with(build: impl FnOnce(celeriac::WorkerBuilder) -> Worker) -> Self {
        let server = Server::start();
        let broker: Arc<dyn Broker> = Arc::new(server.broker());
        let (journal, gate) = (Journal::default(), CancellationToken::new());
        let builder = worker(broker.clone(), &journal, &gate).concurrency(2);
        let running = Running::start(build(builder), PATIENCE);
        let stage = Self {
            client: Client::new(broker.clone()),
            server,
            broker,
            journal,
            gate,
            running,
        };
        eventually("the worker answers", async || {
            let nodes = stage.control().ping().await.unwrap();
            (nodes == ["celery@test"]).then_some(())
        })
        .await;
        stage
    }

    fn control(&self) -> Control {
        Control::new(self.broker.clone()).timeout(PATIENCE)
    }

    /// Waits until so many workers answer: a Python worker says that it is ready before it listens.
    async fn until_there_are(&self, workers: usize) {
        eventually("every worker answers", async || {
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

    async fn ask(&self, method: &str, arguments: Value) -> Value {
        let replies = ask(&self.control(), method, arguments).await;
        let [reply] = <[Reply; 1]>::try_from(replies).unwrap();
        assert_eq!(reply.node, "celery@test");
        reply.content
    }

    /// What `celery inspect ... --json` or `celery control ... --json` prints about the Rust worker.
    async fn celery(&self, python: &Python, arguments: &[&str]) -> Value {
        let url = self.server.url();
        let mut command = vec!["-m", "celery", "-b", &url];
        command.extend(arguments);
        // With a destination Celery knows how many replies there will be.
        command.extend(["--destination", "celery@test", "--timeout", "20", "--json"]);
        let printed = python.output(&url, &command).await;
        let mut answers: Value = serde_json::from_str(printed.trim()).unwrap_or_else(|_| panic!("{printed}"));
        // `inspect` prints an object, `control` a list of objects.
        if let Value::Array(list) = &mut answers {
            assert_eq!(list.len(), 1, "{printed}");
            answers = list.remove(0);
        }
        answers["celery@test"].take()
    }

    async fn rate(&self, task: &str, rate: &str) -> Value {
        let mut replies = self.control().rate_limit(task, rate).await.unwrap();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0).content
    }

    async fn end(self) {
        self.gate.cancel();
        self.running.stop().await.unwrap();
    }
}

async fn ask(control: &Control, method: &str, arguments: Value) -> Vec<Reply> {
    let arguments: Map<String, Value> = serde_json::from_value(arguments).unwrap();
    control.inspect(method, arguments).await.unwrap()
}

fn ok(text: &str) -> Value {
    json!({"ok": text})
}
