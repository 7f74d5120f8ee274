//! Rust tasks that replace themselves or extend their chord, in canvases that Python sends, and Celery's
//! built-in tasks.

use std::sync::Arc;

use celeriac::{
    Broker, Canvas, Client, Signature, TaskContext, TaskError, TaskOptions, WorkerBuilder, chord, group,
};
use serde_json::{Value, json};

use crate::{
    celery::Python,
    patient_broker,
    server::Server,
    support::{Journal, PATIENCE, Running},
    with_every_celery,
};

with_every_celery! {
    a_task_is_replaced_by_any_canvas_at_any_place
    a_replaced_task_keeps_its_id_callbacks_and_errbacks
    a_task_adds_to_its_chord
    builtin_tasks_run
    a_python_task_is_replaced_by_tasks_on_a_rust_worker
    a_chord_whose_header_ends_in_a_group_runs_its_body
    canvases_are_exchanged_as_dictionaries
}

fn add(a: i64, b: i64) -> Signature {
    Signature::new("add").arg(a).arg(b)
}

/// Returns the canvas of this kind; its value is 30, or 10 and 20.
fn canvas(kind: &str) -> Canvas {
    let pair = || group([add(4, 6), add(8, 12)]);
    match kind {
        "task" => add(10, 20).into(),
        "chain" => add(1, 2)
            .then(add(10, 20).immutable())
            .then(Signature::new("pass")),
        "group" => pair(),
        "chain to group" => add(1, 1).then(group([
            Signature::new("add").arg(8),
            Signature::new("add").arg(18),
        ])),
        "chord" => chord([add(4, 6), add(8, 12)], Signature::new("total")),
        "again" => Signature::new("replaced").arg("chord").into(),
        "fails" => Signature::new("broken").arg("no more").into(),
        other => panic!("{other}"),
    }
}

fn tasks(broker: Arc<dyn Broker>, journal: &Journal) -> WorkerBuilder {
    let options = TaskOptions::new;
    let noted = journal.clone();
    crate::tasks::worker(broker, journal)
        .task(
            "replaced",
            options(),
            async |_: TaskContext, (kind,): (String,)| Err::<(), _>(TaskError::replace(canvas(&kind))),
        )
        .task(
            "replaced after",
            options(),
            async |_: TaskContext, (_, kind): (Value, String)| {
                Err::<(), _>(TaskError::replace(canvas(&kind)))
            },
        )
        .task(
            "total",
            options(),
            async |_: TaskContext, (numbers,): (Vec<i64>,)| {
                Ok::<_, TaskError>(numbers.into_iter().sum::<i64>())
            },
        )
        .task("pass", options(), async |_: TaskContext, (value,): (Value,)| {
            Ok::<_, TaskError>(value)
        })
        .task(
            "count",
            options(),
            async |_: TaskContext, (values,): (Vec<Value>,)| Ok::<_, TaskError>(values.len()),
        )
        .task(
            "adds",
            options(),
            async |context: TaskContext, (value,): (i64,)| {
                let added = context.add_to_chord(add(100, value)).await?;
                Ok::<_, TaskError>(json!(added.id()).as_str().map(|_| value))
            },
        )
        .task("failed", options(), move |_: TaskContext, (id,): (String,)| {
            let noted = noted.clone();
            async move {
                noted.write(id);
                Ok::<_, TaskError>(())
            }
        })
}

async fn a_task_is_replaced_by_any_canvas_at_any_place(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    let send = "
from celery import chain, chord, group
replaced = lambda kind: app.signature('replaced', args=[kind])
after = lambda kind: app.signature('replaced after', args=[kind])
t = lambda name, *args: app.signature(name, args=args)
def values(kind, n):
    once = replaced(kind)
    results = [
        once.apply_async(),
        chain(replaced(kind), t('pass')).apply_async(),
        chain(t('add', 1, 1), after(kind), t('pass'), t('pass')).apply_async(),
        chain(t('add', 1, 1), after(kind)).apply_async(),
        group([replaced(kind), t('add', 1, 2)]).apply_async(),
        chord([replaced(kind), t('add', 1, 2)], t('pass')).apply_async(),
        chord([chain(t('add', 1, 1), after(kind)), t('add', 1, 2)], t('pass')).apply_async(),
        chord([t('add', 1, 2), t('add', 1, 2)], after(kind)).apply_async(),
        chain(chord([t('add', 1, 2), replaced(kind)], after(kind)), t('pass')).apply_async(),
    ]
    got = []
    for result in results:
        try:
            got.append(result.get(timeout=20))
        except Exception as error:
            got.append(repr(error))
    return got
{kind: values(kind, 9) for kind in ['task', 'chain', 'chord', 'again', 'group']}";
    let got = client.run(send).await;
    for kind in ["task", "chain", "chord", "again", "group"] {
        let value = if kind == "group" {
            json!([10, 20])
        } else {
            json!(30)
        };
        let expected = json!([
            value,
            value,
            value,
            value,
            [value, 3],
            [value, 3],
            [value, 3],
            value,
            value,
        ]);
        assert_eq!(got[kind], expected, "Celery {}: {kind}", python.celery);
    }
    running.stop().await.unwrap();
}

async fn a_replaced_task_keeps_its_id_callbacks_and_errbacks(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let journal = Journal::default();
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &journal).build(),
        PATIENCE,
    );
    let send = "
linked = app.signature('replaced', args=['group'])
linked.link(app.signature('note', args=['linked'], immutable=True))
linked.link_error(app.signature('failed'))
result = linked.apply_async(task_id='one')
failing = app.signature('replaced', args=['fails'])
failing.link_error(app.signature('failed'))
failed = failing.apply_async(task_id='two')
try:
    failed.get(timeout=20)
except OutOfStock as error:
    raised = str(error)
[result.get(timeout=20), raised]";
    assert_eq!(client.run(send).await, json!([[10, 20], "no more"]));
    let mut lines = journal.until(2).await;
    lines.sort();
    assert_eq!(lines, ["linked", "two"], "Celery {}", python.celery);
    running.stop().await.unwrap();
}

async fn a_task_adds_to_its_chord(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    let send = "
from celery import chain, chord, group
t = lambda name, *args: app.signature(name, args=args)
summed = chord([t('adds', 1), t('add', 10, 10), t('adds', 2)], t('total'))
total = summed.apply_async().get(timeout=20)
try:
    app.send_task('adds', [1]).get(timeout=20)
except Exception as error:
    alone = str(error)
[total, alone, store.keys('celery-taskset-meta-*.t')]";
    let expected = json!([
        1 + 101 + 20 + 2 + 102,
        "the current task is not a member of any chord",
        []
    ]);
    assert_eq!(client.run(send).await, expected, "Celery {}", python.celery);
    running.stop().await.unwrap();
}

async fn builtin_tasks_run(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    // Celery 5.6 completes only the first of several result objects with the same id, so the parts are read from `children`.
    let send = "
import json
from celery import chain, chord, group
pairs = [(number, number) for number in range(7)]
chunks = add.chunks(pairs, 3).apply_async().get(timeout=20)
starmap = add.starmap(pairs).apply_async()
mapped = pass_on.map(['a', 'b']).apply_async()
accumulated = app.send_task('celery.accumulate', [[1, 2], 3], {'index': 0})
cleaned = app.send_task('celery.backend_cleanup')
sent = app.send_task('celery.chunks', [], {'task': add.s(), 'it': pairs, 'n': 4})
returned, (later,) = sent.get(timeout=20), sent.children
assert returned == json.loads(json.dumps(later.as_tuple())), returned
later = later.get(timeout=20)
header = group([add.s(1, 2), add.s(3, 4)])()
unlock = app.send_task('celery.chord_unlock', [header.id, total.s().set(task_id='unlocked')], {
    'interval': 0.1, 'result': [result.as_tuple() for result in header.results]})
try:
    app.send_task('celery.chain').get(timeout=20)
except NotImplementedError as error:
    chained = str(error)
[chunks, starmap.get(timeout=20), mapped.get(timeout=20), accumulated.get(timeout=20),
 cleaned.get(timeout=20), later, app.AsyncResult('unlocked').get(timeout=20), chained]";
    let doubled: Vec<i64> = (0..7).map(|number| number * 2).collect();
    assert_eq!(
        client.run(send).await,
        json!([
            [doubled[..3], doubled[3..6], doubled[6..]],
            doubled,
            ["a", "b"],
            [1, 2],
            null,
            [doubled[..4], doubled[4..]],
            10,
            "chain is not a real task",
        ]),
        "Celery {}",
        python.celery
    );
    let registered = "app.control.inspect(timeout=5).registered()";
    let registered = client.run(registered).await;
    assert!(!registered.to_string().contains("celery."), "{registered}");
    running.stop().await.unwrap();
}

async fn a_python_task_is_replaced_by_tasks_on_a_rust_worker(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    let worker = python.worker(&server.url(), &["-Q", "python"], &[]).await;
    let send = "
from celery import chain, chord, group
parts = [app.signature('replace_by_group', args=[3]).set(queue='python'), add.s(1, 1)]
[group(parts)().get(timeout=20), chain(parts[0], app.signature('count'))().get(timeout=20)]";
    assert_eq!(
        client.run(send).await,
        json!([[[0, 2, 4], 2], 3]),
        "Celery {}",
        python.celery
    );
    worker.stop().await;
    running.stop().await.unwrap();
}

async fn canvases_are_exchanged_as_dictionaries(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    let ours = add(1, 2).then(group([
        Signature::new("add").arg(10),
        Signature::new("add").arg(20),
    ]));
    let ours = ours.then(Signature::new("total"));
    let text = serde_json::to_string(&ours).unwrap();
    let send = format!("import json; app.signature(json.loads({text:?})).apply_async().get(timeout=20)");
    assert_eq!(client.run(&send).await, json!(36), "Celery {}", python.celery);
    let theirs = "
from celery import chain, group
json.loads(json.dumps(chain(add.s(1, 2), group(add.s(10), add.s(20)), total.s())))";
    let theirs: Canvas = serde_json::from_value(client.run(theirs).await).unwrap();
    let rust = Client::new(Arc::new(patient_broker(&server)));
    let sent = rust.apply(theirs).await.unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!(36)));
    running.stop().await.unwrap();
}

async fn a_chord_whose_header_ends_in_a_group_runs_its_body(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let running = Running::start(
        tasks(Arc::new(patient_broker(&server)), &Journal::default()).build(),
        PATIENCE,
    );
    let send = "
from celery import chain, chord, group
p = lambda *args: app.signature('pass', args=args)
def inner():
    return chord(group(chain(p(42), group(p(), p()))), p()).apply_async()
def body():
    return chord([p(1), p(2)], group(p(), p())).apply_async()
results = [send() for _ in range(25) for send in (inner, body)]
counts = {}
for result in results:
    try:
        value = repr(result.get(timeout=30))
    except Exception as error:
        value = repr(error)
    counts[value] = counts.get(value, 0) + 1
counts";
    assert_eq!(
        client.run(send).await,
        json!({"[[42, 42]]": 25, "[[1, 2], [1, 2]]": 25}),
        "Celery {}",
        python.celery
    );
    running.stop().await.unwrap();
}
