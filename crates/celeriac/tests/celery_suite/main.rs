//! Runs Celery's own integration suite, from its source distribution, against a worker of this crate. The suite is
//! unchanged except that its fixtures start the program in `worker`, through the plugin `celeriac_plugin.py`.
//!
//! `passing.txt` lists the tests that pass with Celery's own worker. All of them must pass here, except those in
//! `exceptions.txt`, which must fail. `TEST_CELERY_SUITE_WORKER=celery` runs the suite with Celery's own worker, which
//! must pass all of them.
//!
//! Needs the folder of the source distribution (`TEST_CELERY_SUITE`), and Python with Celery and the packages
//! of the suite; `scripts/test` provides both.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]
#![expect(dead_code, reason = "each test crate uses only parts of `support`")]

#[path = "../support/celery.rs"]
mod celery;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    celery::{Python, PythonClient},
    server::Server,
};

/// Version of the suite.
const VERSION: &str = "5.6";
const FILES: [&str; 4] = ["test_canvas", "test_tasks", "test_inspect", "test_worker"];
/// Number of parts of the suite that run concurrently, each with its own server and worker. They mostly wait.
const SHARES: usize = 9;
const TIMEOUT: Duration = Duration::from_secs(900);

/// Returns the tests in a list, without comments.
fn tests(list: &str) -> BTreeSet<String> {
    let lines = list.lines().map(str::trim);
    let tests = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    tests.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celerys_own_suite_passes_except_for_the_listed_tests() {
    let python = Python::with_celery(VERSION);
    let own_worker = setting("TEST_CELERY_SUITE_WORKER").is_some_and(|worker| worker == "celery");
    let shares = join_all((0..SHARES).map(|share| run(&python, share, own_worker))).await;
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for outcome in shares.into_iter().flatten() {
        let text = |name: &str| outcome[name].as_str().unwrap().to_owned();
        let error = errors.entry(text("test")).or_default();
        if text("outcome") != "passed" {
            *error += &format!("{}: {}\n", text("outcome"), text("error"));
        }
    }
    let passing = tests(include_str!("passing.txt"));
    let exceptions = if own_worker {
        BTreeSet::new()
    } else {
        tests(include_str!("exceptions.txt"))
    };
    let failed = |test: &String| errors.get(test).is_none_or(|error| !error.is_empty());
    let required = passing.difference(&exceptions);
    let unexpected: Vec<&String> = required.filter(|test| failed(test)).collect();
    let not_failed: Vec<&String> = exceptions
        .iter()
        .filter(|test| errors.get(*test).is_none_or(String::is_empty))
        .collect();
    let details = unexpected.iter().map(|test| {
        let error = errors.get(*test).map_or("did not run", String::as_str);
        format!("--- {test}\n{error}\n")
    });
    let details = details.collect::<String>();
    assert!(
        unexpected.is_empty() && not_failed.is_empty(),
        "{details}failed, but must pass: {unexpected:#?}\nlisted in exceptions.txt, but did not fail: {not_failed:#?}",
    );
}

/// Four tests of the suite check stamps in handlers of the signal `task_received`, which never run here. This test
/// reads the stamps of the same kinds of tasks from their results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tasks_of_stamped_canvases_are_stamped() {
    let (_server, _worker, mut client) = client().await;
    let stamped = client.run(STAMPED).await;
    let stamp = json!(42);
    assert_eq!(stamped["replaced"], "This is the replaced task");
    assert_eq!(stamped["stamps"], json!(vec![stamp; 22]), "{stamped:#}");
}

const STAMPED: &str = "
from celery.canvas import StampingVisitor
class Visitor(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {'stamp': 42}
canvases = [
    add(1, 1),
    group(add(1, 1), add(2, 2)),
    chain(group(add(0, 0)), add(-1)),
    chord([add(1, 1) | add(10), add(2, 2) | add(20)], xsum()),
    chord(group(chain(add(1, 1), add(2)), chord([add(3, 3), add(4, 4)], xsum())), xsum()),
    retry_once(),
    chain(group(add(1, 2) | add(3), identity(21)), group(xsum(), xsum())),
]
for canvas in canvases:
    canvas.stamp(visitor=Visitor())
    canvas.apply_async().get(timeout=20)
metas = [json.loads(store.get(key)) for key in store.keys('celery-task-meta-*')]
replaced = replace_with_stamped_task().apply_async()
replaced.get(timeout=20)
replaced = json.loads(store.get('celery-task-meta-' + replaced.id))
{'stamps': [meta.get('stamp') for meta in metas], 'replaced': replaced.get('StampOnReplace')}";

/// Such chords once lost their bodies when the members of the group ended at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chords_whose_header_ends_in_a_group_complete() {
    let (_server, _worker, mut client) = client().await;
    let mut remaining = setting("TEST_CHORDS").map_or(50, |number| number.parse().unwrap());
    while remaining > 0 {
        let batch = remaining.min(10);
        let ended = client
            .run(&format!("{CHORDS}[value(result) for result in run({batch})]"))
            .await;
        assert_eq!(ended, json!(vec![[42, 42]; batch]));
        remaining -= batch;
    }
}

const CHORDS: &str = "
def run(count):
    bodies = [identity(), group(identity(), identity())]
    header = [chain(identity(42), group(identity(), identity()))]
    return [chord(header, bodies[n % 2])() for n in range(count)]
def value(result):
    values = [part.get(timeout=20) for part in getattr(result, 'results', [result])]
    return values[0][0] if values in ([[[42, 42]]], [[[42, 42]]] * 2) else values
";

/// Starts a server, the worker with concurrency 10, and a client whose snippets can call the worker's tasks.
async fn client() -> (Server, Child, PythonClient) {
    let server = Server::start();
    let worker = Command::new(worker())
        .args([&server.url(), "celery@suite", "10"])
        .kill_on_drop(true)
        .stderr(Stdio::null())
        .spawn();
    let mut client = Python::with_celery(VERSION).client(&server.url());
    client.run(PREPARE).await;
    (server, worker.unwrap(), client)
}

const PREPARE: &str = "
import gc, json
from celery import chain, chord, group
gc.disable() # as in the suite
def task(name):
    return lambda *args: app.signature('t.integration.tasks.' + name, args=args)
add, identity, replace_with_stamped_task, retry_once, xsum = map(
    task, ['add', 'identity', 'replace_with_stamped_task', 'retry_once', 'xsum'])
";

#[expect(clippy::disallowed_methods, reason = "the environment configures the tests")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs a part of the suite, with its own server and worker. Returns the outcomes that the plugin has written.
async fn run(python: &Python, share: usize, own_worker: bool) -> Vec<Value> {
    let server = Server::start();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/celery_suite");
    let outcomes = server.folder.join("outcomes");
    let files = FILES.map(|file| format!("t/integration/{file}.py"));
    let files = files.each_ref().map(String::as_str);
    let options = ["-m", "pytest", "--quiet", "--tb=short", "-p", "no:cacheprovider"];
    let plugins = ["-p", "celery.contrib.pytest", "-p", "celeriac_plugin"];
    let mut command = python.command(&server.url(), &[&options[..], &plugins, &files].concat());
    // One test starts `celery` by its name.
    let programs = Path::new(command.as_std().get_program())
        .parent()
        .unwrap()
        .display();
    let path = format!("{programs}:/usr/local/bin:/usr/bin:/bin");
    command
        .env("PATH", path)
        .current_dir(suite())
        .env("PYTHONPATH", here)
        .env("TEST_BROKER", server.url())
        .env("TEST_BACKEND", server.url())
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", server.port.to_string())
        .env("SUITE_WORKER_LOG", server.folder.join("worker.log"))
        .env("SUITE_SHARE", format!("{share}/{SHARES}"))
        .env("SUITE_OUTCOMES", &outcomes);
    if !own_worker {
        command.env("SUITE_WORKER", worker());
    }
    let output = timeout(TIMEOUT, command.output()).await;
    let output = output.expect("the suite ends in time").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcomes = fs::read_to_string(outcomes).unwrap_or_else(|_| panic!("the suite did not run:\n{text}"));
    outcomes
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn suite() -> PathBuf {
    setting("TEST_CELERY_SUITE")
        .expect(
            "TEST_CELERY_SUITE must name the folder of Celery's source distribution; scripts/test sets it",
        )
        .into()
}

/// Returns the path of the program in `worker`, which Cargo puts next to the folder of the tests.
fn worker() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/celeriac_suite_worker");
    assert!(
        program.exists(),
        "{program:?} is missing; build it with `cargo build -p celeriac --examples`"
    );
    program
}
