//! Python sends, Rust runs, Python reads the result.

use std::sync::Arc;

use celeriac::Broker;
use serde_json::json;

use crate::{
    celery::{Python, PythonClient},
    patient_broker,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually},
    tasks, with_every_celery,
};

with_every_celery! {
    a_task_runs_and_its_result_is_found
    arguments_arrive_as_they_were_sent
    compressed_bodies_are_read
    a_failure_raises_the_exception_it_names
    a_task_is_retried_until_it_succeeds_or_fails_with_the_cause
    expiry_and_countdown_are_respected
    lower_priority_numbers_run_first
    an_ignored_result_is_not_stored
    headers_survive_a_retry_and_a_move_to_python
}

struct Fixture {
    server: Server,
    journal: Journal,
    broker: Arc<dyn Broker>,
    client: PythonClient,
}

impl Fixture {
    fn new(python: &Python) -> Self {
        let server = Server::start();
        Self {
            journal: Journal::default(),
            broker: Arc::new(patient_broker(&server)),
            client: python.client(&server.url()),
            server,
        }
    }

    /// Starts a worker with a concurrency of one.
    fn worker(&self) -> Running {
        let worker = tasks::worker(self.broker.clone(), &self.journal).concurrency(1);
        Running::start(worker.build(), PATIENCE)
    }
}

async fn a_task_runs_and_its_result_is_found(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let calls = "
results = [add.delay(2, 3), add.delay(2, b=-40), add.delay(a=1, b=1), add.s(1).delay(9)]
[result.get(timeout=20) for result in results]";
    assert_eq!(fixture.client.run(calls).await, json!([5, -38, 2, 10]));
    let state = "
[results[0].state, results[0].traceback, results[0].children, results[0].date_done.tzinfo is not None]";
    assert_eq!(
        fixture.client.run(state).await,
        json!(["SUCCESS", null, [], true])
    );
    worker.stop().await.unwrap();
}

async fn arguments_arrive_as_they_were_sent(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    // Compared in Python, because different Python values may have the same JSON.
    let echoes = r#"
import datetime, decimal, uuid
values = [
    None, True, "", "\x00\n\"\\", "ü你🦀", "\u2028", "x" * 100_000, [], {}, [[], {"": []}, [[[1]]]], {"ü": {"b": 1, "a": 2}},
    0, -1, 2**53 + 1, 2**63 - 1, -2**63, 2**63, 2**64 - 1, 2**64, 2**70, -2**70,
    float('nan'), float('inf'), float('-inf'), [2**70, {'a': float('nan')}],
    0.1, 0.1 + 0.2, 1 / 3, 1e300, 5e-324, -0.0, 1.7976931348623157e308, 123456789.123456789, 3.0,
    datetime.datetime(2026, 11, 22, 6, 51, 26, 372432, tzinfo=datetime.timezone.utc), decimal.Decimal("1.10"), uuid.UUID(int=7),
]
results = [echo.delay(value=value) for value in values]
wrong = []
for value, result in zip(values, results):
    returned = result.get(timeout=20)
    if (returned != value and 'nan' not in repr(value)) or type(returned) is not type(value) or repr(returned) != repr(value):
        wrong.append([repr(value)[:80], repr(returned)[:80]])
wrong"#;
    assert_eq!(
        fixture.client.run(echoes).await,
        json!([]),
        "Celery {}",
        python.celery
    );
    worker.stop().await.unwrap();
}

async fn compressed_bodies_are_read(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let send = "
value = ['x' * 1000, 'ü']
[echo.apply_async([value], compression=name).get(timeout=20) == value for name in ['zlib', 'gzip']]";
    assert_eq!(fixture.client.run(send).await, json!([true, true]));
    let send = "
def result(name):
    try:
        return echo.apply_async(['x'], compression=name).get(timeout=20)
    except Exception as error:
        return str(error)
[result('bzip2'), result('lzma')]";
    let result = |name: &str, feature: &str, on: bool| {
        let reason = format!(
            "compression \"application/x-{name}\" is not supported; enable the feature `{feature}` of celeriac"
        );
        if on { "x".to_owned() } else { reason }
    };
    let expected = json!([
        result("bz2", "bzip2", cfg!(feature = "bzip2")),
        result("lzma", "lzma", cfg!(feature = "lzma")),
    ]);
    assert_eq!(fixture.client.run(send).await, expected);
    let send = "
from kombu.utils.encoding import bytes_to_str
def result(serializer):
    try:
        return echo.apply_async(['x'], serializer=serializer).get(timeout=20)
    except Exception as error:
        return str(error)
[result('pickle'), result('yaml')]";
    let expected = json!([
        "content type \"application/x-python-serialize\" is not accepted; send the task with the serializer json",
        "content type \"application/x-yaml\" is not accepted; send the task with the serializer json",
    ]);
    if fixture
        .client
        .run("import importlib.util; importlib.util.find_spec('yaml') is not None")
        .await
        == json!(true)
    {
        assert_eq!(fixture.client.run(send).await, expected);
    }
    worker.stop().await.unwrap();
}

async fn a_failure_raises_the_exception_it_names(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    fixture
        .client
        .run(
            "
def failure(name, *args):
    result = app.send_task(name, args)
    try:
        result.get(timeout=20)
    except Exception as error:
        return [type(error).__module__, type(error).__name__, str(error), result.state, result.traceback]
",
        )
        .await;
    for (call, expected) in [
        (
            "failure('broken', 'no more')",
            json!([
                "app",
                "OutOfStock",
                "no more",
                "FAILURE",
                "Traceback (most recent call last):\napp.OutOfStock: no more\n"
            ]),
        ),
        (
            "failure('key_error', 'k')",
            json!([
                "builtins",
                "KeyError",
                "'k'",
                "FAILURE",
                "Traceback (most recent call last):\nKeyError: k\n"
            ]),
        ),
        (
            "failure('nope.task', 1)",
            json!([
                "celery.exceptions",
                "NotRegistered",
                "'nope.task'",
                "FAILURE",
                null
            ]),
        ),
        (
            "failure('add', 2 ** 64, float('nan'))",
            json!([
                "builtins",
                "TypeError",
                "add() does not take arguments of types (int, float)",
                "FAILURE",
                "Traceback (most recent call last):\nTypeError: add() does not take arguments of types (int, float)\n"
            ]),
        ),
        (
            "failure('add', 1)",
            json!([
                "builtins",
                "TypeError",
                "add() does not take arguments of types (int)",
                "FAILURE",
                "Traceback (most recent call last):\nTypeError: add() does not take arguments of types (int)\n"
            ]),
        ),
    ] {
        assert_eq!(
            fixture.client.run(call).await,
            expected,
            "Celery {}",
            python.celery
        );
    }
    worker.stop().await.unwrap();
}

async fn a_task_is_retried_until_it_succeeds_or_fails_with_the_cause(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let succeeded = "
seen = []
result = flaky.delay(2)
returned = result.get(timeout=20, on_message=lambda message: seen.append(message['status']))
[returned, result.state, seen]";
    let (returned, celery) = (fixture.client.run(succeeded).await, &python.celery);
    let seen = ["STARTED", "RETRY", "STARTED", "RETRY", "STARTED", "SUCCESS"];
    assert_eq!(returned, json!([2, "SUCCESS", seen]), "Celery {celery}");
    let exhausted = "
result = flaky.delay(1000)
try:
    result.get(timeout=20)
except OutOfStock as error:
    returned = [str(error), result.state]
returned";
    assert_eq!(
        fixture.client.run(exhausted).await,
        json!(["not yet", "FAILURE"]),
        "Celery {celery}"
    );
    worker.stop().await.unwrap();
}

async fn expiry_and_countdown_are_respected(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let expired = "
import datetime
from celery.exceptions import TaskRevokedError
past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=1)
result = note.apply_async(['expired'], expires=past)
try:
    result.get(timeout=20)
except TaskRevokedError as error:
    returned = [str(error), result.state]
returned";
    assert_eq!(fixture.client.run(expired).await, json!(["expired", "REVOKED"]));
    let later = "
begin = time.time()
late = note.apply_async(['late'], countdown=1.5)
soon = note.apply_async(['soon'], expires=3600)
soon.get(timeout=20), late.get(timeout=20)
time.time() - begin";
    let seconds = fixture.client.run(later).await.as_f64().unwrap();
    assert!(
        seconds >= 1.5,
        "Celery {}: finished after {seconds} s",
        python.celery
    );
    assert_eq!(
        fixture.journal.lines(),
        ["soon", "late"],
        "Celery {}",
        python.celery
    );
    worker.stop().await.unwrap();
}

async fn lower_priority_numbers_run_first(python: Python) {
    let mut fixture = Fixture::new(&python);
    let send = "
for line, priority in [('last', 9), ('third', 6), ('second', 3), ('first a', 0), ('first b', 2)]:
    result = note.apply_async([line], priority=priority)";
    fixture.client.run(send).await;
    let worker = fixture.worker();
    assert_eq!(
        fixture.journal.until(5).await,
        ["first a", "first b", "second", "third", "last"],
        "Celery {}",
        python.celery
    );
    worker.stop().await.unwrap();
}

async fn an_ignored_result_is_not_stored(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let id = fixture
        .client
        .run("note.apply_async(['x'], ignore_result=True).id")
        .await;
    fixture.journal.until(1).await;
    eventually("the task is settled", async || {
        (fixture.broker.depth("celery").await.unwrap().unacked == 0).then_some(())
    })
    .await;
    let kept: bool = redis::cmd("EXISTS")
        .arg(format!("celery-task-meta-{}", id.as_str().unwrap()))
        .query(&mut fixture.server.connection())
        .unwrap();
    assert!(!kept, "Celery {}", python.celery);
    worker.stop().await.unwrap();
}

async fn headers_survive_a_retry_and_a_move_to_python(python: Python) {
    let mut fixture = Fixture::new(&python);
    let worker = fixture.worker();
    let send = "
headers = {'x-tenant': {'id': 7}, 'traceparent': '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'}
result = describe.apply_async(['ü'], kwargs={'ratio': 0.1}, headers=headers, priority=6, time_limit=900)
while result.state != 'RETRY':
    time.sleep(0.01)";
    fixture.client.run(send).await;
    // The retry is returned to the queue, and runs in Python.
    worker.stop().await.unwrap();
    let worker = python.worker(&fixture.server.url(), &[], &[]).await;
    let mut returned = fixture.client.run("result.get(timeout=20)").await;
    let headers = returned["headers"].take();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(headers["x-tenant"], json!({"id": 7}), "Celery {}", python.celery);
    assert_eq!(headers["traceparent"], traceparent, "Celery {}", python.celery);
    assert_eq!(
        returned,
        json!({
            "args": ["ü"], "kwargs": {"ratio": 0.1}, "headers": null,
            "retries": 1, "timelimit": [900, null], "priority": 6,
        }),
        "Celery {}",
        python.celery
    );
    worker.stop().await;
}
