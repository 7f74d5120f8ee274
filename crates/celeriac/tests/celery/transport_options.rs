//! Prefixes of keys, priority steps and the separator: Celery's `broker_transport_options` and
//! `result_backend_transport_options`.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, Control, Event, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions,
    chord,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{
    celery::{Python, PythonClient, PythonWorker},
    journal,
    process::WorkerProcess,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually},
    tasks, with_every_celery,
};

with_every_celery! {
    tasks_results_and_chords_work_in_both_directions
    control_and_events_work_in_both_directions
    a_dead_workers_tasks_run_on_the_other_side
    results_in_another_database_have_their_prefix
}

const PREFIX: &str = "x:";
const VISIBILITY: u64 = 2;

struct Fixture {
    server: Server,
    broker: Arc<dyn Broker>,
    journal: Journal,
    python: Python,
    settings: String,
}

impl Fixture {
    fn new(python: Python) -> Self {
        let server = Server::start();
        let settings = json!({
            "broker_transport_options": {
                "global_keyprefix": PREFIX,
                "priority_steps": Vec::from_iter(0..10),
                "sep": ":",
                "visibility_timeout": VISIBILITY,
            },
            "result_backend_transport_options": {"global_keyprefix": "results"},
        });
        Self {
            broker: Arc::new(RedisBroker::new(config(&server)).unwrap()),
            server,
            journal: Journal::default(),
            python,
            settings: settings.to_string(),
        }
    }

    async fn python_worker(&self, args: &[&str]) -> PythonWorker {
        let env = [("TEST_CELERY_SETTINGS", self.settings.as_str())];
        self.python.worker(&self.server.url(), args, &env).await
    }

    fn python_client(&self) -> PythonClient {
        let env = [("TEST_CELERY_SETTINGS", self.settings.as_str())];
        self.python.client_with(&self.server.url(), &env)
    }

    /// Starts a worker with a concurrency of one on the queue `celery`.
    fn rust_worker(&self) -> Running {
        let worker = tasks::worker(self.broker.clone(), &self.journal).task(
            "total",
            TaskOptions::new(),
            async |_: TaskContext, (numbers,): (Vec<i64>,)| {
                Ok::<_, TaskError>(numbers.into_iter().sum::<i64>())
            },
        );
        Running::start(worker.concurrency(1).events(true).build(), PATIENCE)
    }

    /// Asserts that every key has one of the prefixes, except those that the tasks themselves write.
    fn assert_prefixes(&self) {
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query(&mut self.server.connection())
            .unwrap();
        assert!(
            keys.iter()
                .any(|key| key.starts_with("results_celery-task-meta-"))
        );
        let other = |key: &&String| !key.starts_with(PREFIX) && !key.starts_with("results_");
        let other: Vec<&String> = keys
            .iter()
            .filter(other)
            .filter(|key| *key != "journal")
            .collect();
        assert!(other.is_empty(), "Celery {}: {other:?}", self.python.celery);
    }
}

fn config(server: &Server) -> RedisConfig {
    server
        .config()
        .key_prefix(PREFIX)
        .result_key_prefix("results")
        .priority_steps(Vec::from_iter(0..10))
        .separator(":")
        .visibility_timeout(Duration::from_secs(VISIBILITY))
        .response_timeout(Duration::from_secs(60))
}

async fn tasks_results_and_chords_work_in_both_directions(python: Python) {
    let fixture = Fixture::new(python);
    let mut client = fixture.python_client();
    let notes = "
for line, priority in [('last', 9), ('third', 5), ('second', 4), ('first', 0)]:
    note.apply_async([line], priority=priority)";
    client.run(notes).await;
    let lists: Vec<String> = redis::cmd("KEYS")
        .arg("x:celery*")
        .query(&mut fixture.server.connection())
        .unwrap();
    assert_eq!(lists.len(), 4, "{lists:?}");
    assert_eq!(fixture.broker.depth("celery").await.unwrap().waiting, 4);
    let rust = fixture.rust_worker();
    let lines = fixture.journal.until(4).await;
    assert_eq!(lines, ["first", "second", "third", "last"]);
    let worker = fixture.python_worker(&["--queues", "python"]).await;
    client
        .run("from celery import chord; later = add.apply_async([5, 5], countdown=8)")
        .await;
    eventually("the task waits on the server", async || {
        let exists: bool = redis::cmd("EXISTS")
            .arg("x:celeriac.later.x:celery")
            .query(&mut fixture.server.connection())
            .unwrap();
        exists.then_some(())
    })
    .await;
    let sends = [
        ("add.apply_async([2, 3], priority=4)", 5),
        (
            "chord([add.s(1, 1), add.s(2, 2).set(queue='python')])(total.s())",
            6,
        ),
        (
            "chord([add.s(1, 1), add.s(2, 2).set(queue='python')])(total.s().set(queue='python'))",
            6,
        ),
    ];
    for (send, result) in sends {
        assert_eq!(
            client.run(&format!("({send}).get(timeout=20)")).await,
            json!(result)
        );
    }
    let sender = Client::new(fixture.broker.clone());
    let add = |queue: &str| Signature::new("add").arg(3).arg(4).priority(7).queue(queue);
    let id = sender.send(add("python")).await.unwrap();
    assert_eq!(sender.wait(id, PATIENCE).await.unwrap(), 7);
    for queue in ["celery", "python"] {
        let mixed = chord(
            [add("celery"), add("python")],
            Signature::new("total").queue(queue),
        );
        let result = sender.apply(mixed).await.unwrap();
        assert_eq!(result.wait(PATIENCE).await.unwrap(), 14);
    }
    assert_eq!(client.run("later.get(timeout=20)").await, json!(10));
    fixture.assert_prefixes();
    worker.stop().await;
    rust.stop().await.unwrap();
}

async fn control_and_events_work_in_both_directions(python: Python) {
    let fixture = Fixture::new(python);
    let rust = fixture.rust_worker();
    let worker = fixture.python_worker(&["--queues", "python", "-E"]).await;
    let mut expected = vec!["celery@rust".to_owned(), worker.name.clone()];
    expected.sort();
    let control = Control::new(fixture.broker.clone()).timeout(Duration::from_secs(5));
    eventually("Rust reaches both workers", async || {
        let mut nodes = control.ping().await.unwrap();
        nodes.sort();
        (nodes == expected).then_some(())
    })
    .await;
    let mut client = fixture.python_client();
    let ping = "sorted(app.control.inspect(timeout=5, limit=2).ping())";
    assert_eq!(client.run(ping).await, json!(expected));

    let mut events = fixture.broker.listen("celeryev", "task.*").await.unwrap();
    let receive = "
import threading
seen, listening = [], threading.Event()
def listen():
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={
            'worker-heartbeat': lambda event: listening.set(), 'task-succeeded': lambda event: seen.append(event['hostname'])})
        receiver.capture(limit=None, timeout=30)
threading.Thread(target=listen, daemon=True).start()
listening.wait(20)";
    assert_eq!(client.run(receive).await, json!(true));
    let results =
        "[add.delay(1, 1).get(timeout=20), add.apply_async([1, 1], queue='python').get(timeout=20)]";
    assert_eq!(client.run(results).await, json!([2, 2]));
    let received = "
deadline = time.time() + 20
while len(seen) < 2 and time.time() < deadline:
    time.sleep(0.01)
sorted(seen)";
    assert_eq!(client.run(received).await, json!(expected));
    let mut succeeded: Vec<String> = Vec::new();
    while succeeded.len() < 2 {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let batch = Event::decode(&next.unwrap().expect("the connection is open"));
        let ends = batch.into_iter().filter(|event| event.kind == "task-succeeded");
        succeeded.extend(ends.map(|event| event.hostname));
    }
    succeeded.sort();
    assert_eq!(succeeded, expected);
    fixture.assert_prefixes();
    worker.stop().await;
    rust.stop().await.unwrap();
}

async fn a_dead_workers_tasks_run_on_the_other_side(python: Python) {
    let fixture = Fixture::new(python);
    let client = Client::new(fixture.broker.clone());
    let work = |task: &str| Signature::new("work").arg(task).arg(3600);
    let reserved = async |count: u64| {
        eventually("the tasks are reserved", async || {
            let depth = fixture.broker.depth("celery").await.unwrap();
            ((depth.waiting, depth.unacked) == (0, count)).then_some(())
        })
        .await;
    };
    let journal = journal::Journal::new(&format!("prefix-{}", fixture.python.celery));
    let acks_late = json!({"task_acks_late": true});
    let mut settings: Value = serde_json::from_str(&fixture.settings).unwrap();
    settings
        .as_object_mut()
        .unwrap()
        .extend(acks_late.as_object().unwrap().clone());
    let settings = settings.to_string();
    let env = [("TEST_CELERY_SETTINGS", settings.as_str())];
    let prefork = ["--pool", "prefork", "--concurrency", "1"];
    let mut dead = fixture.python.worker(&fixture.server.url(), &prefork, &env).await;
    client.send(work("a")).await.unwrap();
    reserved(1).await;
    dead.kill().await;
    let rust = tasks::worker(fixture.broker.clone(), &fixture.journal).task(
        "work",
        TaskOptions::new(),
        async |context: TaskContext, (_, _): (String, f64)| Ok::<_, TaskError>(context.redelivered),
    );
    let rust = Running::start(rust.build(), PATIENCE);
    reserved(0).await;
    rust.stop().await.unwrap();

    let env = [("TEST_KEY_PREFIX", PREFIX)];
    let mut dead = WorkerProcess::start_with(&fixture.server.url(), "dead", &journal, &["celery"], &env);
    let id = client.send(work("b")).await.unwrap();
    reserved(1).await;
    dead.kill();
    tokio::time::sleep(Duration::from_secs(VISIBILITY + 1)).await;
    let worker = fixture.python_worker(&[]).await;
    client.wait(id, PATIENCE).await.unwrap();
    fixture.assert_prefixes();
    worker.stop().await;
}

async fn results_in_another_database_have_their_prefix(python: Python) {
    let mut fixture = Fixture::new(python);
    let backend = fixture.server.url().replace("/0", "/1");
    let config = config(&fixture.server).result_backend(&backend);
    fixture.broker = Arc::new(RedisBroker::new(config).unwrap());
    let rust = fixture.rust_worker();
    let env = [
        ("TEST_CELERY_SETTINGS", fixture.settings.as_str()),
        ("TEST_CELERY_BACKEND", backend.as_str()),
    ];
    let url = fixture.server.url();
    let worker = fixture.python.worker(&url, &["--queues", "python"], &env).await;
    let mut client = fixture.python.client_with(&url, &env);
    let send = "
from celery import chord
chord([add.s(1, 1), add.s(2, 2).set(queue='python')])(total.s()).get(timeout=20)";
    assert_eq!(client.run(send).await, json!(6));
    let client = Client::new(fixture.broker.clone());
    let add = Signature::new("add").arg(3).arg(4);
    let mixed = chord(
        [add.clone(), add.queue("python")],
        Signature::new("total").queue("python"),
    );
    let result = client.apply(mixed).await.unwrap();
    assert_eq!(result.wait(PATIENCE).await.unwrap(), 14);
    let mut connection = redis::Client::open(backend.as_str())
        .unwrap()
        .get_connection()
        .unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let other = keys.iter().filter(|key| !key.starts_with("results_"));
    assert_eq!(Vec::from_iter(other), [""; 0], "Celery {}", fixture.python.celery);
    assert!(
        keys.iter()
            .any(|key| key.starts_with("results_celery-task-meta-"))
    );
    worker.stop().await;
    rust.stop().await.unwrap();
}
