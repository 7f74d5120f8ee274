//! Canvases sent and run by either side, and also by both sides together.

use std::sync::Arc;

use celeriac::{Canvas, Client, Signature, Status, WaitError, chain, chord, group};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    celery::{Python, PythonClient, PythonWorker},
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
    with_every_celery,
};

with_every_celery! {
    python_runs_what_rust_sends
    python_runs_callbacks_of_rust
    rust_sees_failures_of_python
    rust_runs_what_python_sends
    rust_runs_callbacks_of_python
    python_sees_failures_of_rust
    rust_reads_arguments_and_retry_limits_of_python
    both_sides_run_parts_of_a_canvas
    both_sides_run_parts_of_a_failing_canvas
    many_chords_on_both_sides_run_their_bodies_once
}

fn add(numbers: &[i64]) -> Signature {
    Signature::new("add").args(numbers.iter().copied().map(Value::from).collect())
}

fn total() -> Signature {
    Signature::new("total")
}

async fn value(client: &Client, canvas: impl Into<Canvas>) -> Result<Value, WaitError> {
    client.apply(canvas).await.unwrap().wait(PATIENCE).await
}

fn rust_worker(server: &Server, queue: &str) -> (Running, Journal) {
    let journal = Journal::default();
    let worker = worker(Arc::new(server.broker()), &journal, &CancellationToken::new()).queue(queue);
    (Running::start(worker.build(), PATIENCE), journal)
}

/// Waits for at least `count` lines in the journal of the Python tasks and returns them.
async fn python_journal(server: &Server, count: usize) -> Vec<String> {
    eventually("enough lines in Python's journal", async || {
        let lines: Vec<String> = redis::cmd("LRANGE")
            .arg("journal")
            .arg(0)
            .arg(-1)
            .query(&mut server.connection())
            .unwrap();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// Checks that no keys of chords are left, except `.d` and `.c`, which Celery uses since version 5.7.
fn no_chord_is_left(server: &Server) {
    let left: Vec<String> = redis::cmd("KEYS")
        .arg("celery-taskset-meta-*.[jst]")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(left, Vec::<String>::new());
}

async fn python_runs_what_rust_sends(python: Python) {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let worker = python.worker(&server.url(), &[], &[]).await;
    let chained = client
        .apply(add(&[1, 2]).then(add(&[3])).then(add(&[20, 22]).immutable()))
        .await
        .unwrap();
    assert_eq!(chained.wait(PATIENCE).await, Ok(json!(42)));
    assert_eq!(chained.parent().unwrap().wait(PATIENCE).await, Ok(json!(6)));
    let parts = || -> Vec<Canvas> { vec![add(&[1, 2]).into(), add(&[3, 4]).then(add(&[5]))] };
    assert_eq!(value(&client, group(parts())).await, Ok(json!([3, 12])));
    assert_eq!(value(&client, chord(parts(), total())).await, Ok(json!(15)));
    let canvas = add(&[1, 1])
        .then(group([add(&[2]), add(&[3])]))
        .then(total())
        .then(add(&[100]))
        .then(group([add(&[1]), add(&[2])]))
        .then(total());
    assert_eq!(value(&client, canvas).await, Ok(json!(221)));
    let inner: Vec<Canvas> = vec![chord(parts(), total()), add(&[1, 1]).into()];
    assert_eq!(value(&client, chord(inner, total())).await, Ok(json!(17)));
    assert_eq!(
        value(&client, chord(Vec::<Signature>::new(), total())).await,
        Ok(json!(0))
    );
    no_chord_is_left(&server);
    worker.stop().await;
}

async fn python_runs_callbacks_of_rust(python: Python) {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let worker = python.worker(&server.url(), &["-Q", "celery,other"], &[]).await;
    let note = || Signature::new("note");
    let linked = Signature::new("pass")
        .arg("value")
        .on_success(note().queue("other"))
        .on_success(note().arg("immutable").immutable())
        .on_error(note().arg("never"));
    assert_eq!(value(&client, linked).await, Ok(json!("value")));
    let mut lines = python_journal(&server, 2).await;
    lines.sort();
    assert_eq!(lines, ["immutable", "value"]);
    let failed = Signature::new("broken")
        .arg("x")
        .on_error(note())
        .on_success(note());
    let failed = client.apply(failed).await.unwrap();
    assert!(failed.wait(PATIENCE).await.is_err());
    assert_eq!(python_journal(&server, 3).await[2], failed.id().as_str());
    worker.stop().await;
}

async fn rust_sees_failures_of_python(python: Python) {
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let worker = python.worker(&server.url(), &[], &[]).await;
    let broken = || Signature::new("broken").arg("no").immutable();
    let sent = client
        .apply(add(&[1, 1]).then(broken()).then(add(&[1])))
        .await
        .unwrap();
    let failed = sent.wait(PATIENCE).await.unwrap_err();
    let WaitError::Failed { exception, .. } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(
        (exception.type_name.as_str(), exception.message.as_str()),
        ("OutOfStock", "no")
    );
    let sent = client
        .apply(chord([add(&[1, 1]), broken()], total()))
        .await
        .unwrap();
    let WaitError::Failed { exception, .. } = sent.wait(PATIENCE).await.unwrap_err() else {
        panic!("a chord error is expected");
    };
    assert_eq!(exception.type_name, "ChordError");
    // Celery 5.6 does not fail the body of a chord when a task before the chord fails.
    let sent = client
        .apply(chain([broken().into(), chord([add(&[1]), add(&[2])], total())]))
        .await
        .unwrap();
    assert!(matches!(sent.wait(PATIENCE).await, Err(WaitError::Failed { .. })));
    worker.stop().await;
}

/// Starts a Python client that has imported Celery's canvas functions.
async fn canvas_client(python: &Python, server: &Server) -> PythonClient {
    let mut client = python.client(&server.url());
    client
        .run("from celery import chain, chord, group, signature")
        .await;
    client
}

/// Sends a canvas with Python and returns the result as Python reads it.
async fn python_value(client: &mut PythonClient, canvas: &str) -> Value {
    client
        .run(&format!("({canvas}).apply_async().get(timeout=20)"))
        .await
}

async fn rust_runs_what_python_sends(python: Python) {
    let server = Server::start();
    let (running, _) = rust_worker(&server, "celery");
    let mut client = canvas_client(&python, &server).await;
    client
        .run("from celery import chain, chord, group, chunks, signature")
        .await;
    client
        .run("r = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()")
        .await;
    assert_eq!(
        client
            .run("[r.get(timeout=20), r.parent.get(timeout=20), r.parent.parent.get(timeout=20)]")
            .await,
        json!([10, 6, 3])
    );
    assert_eq!(
        client
            .run(
                "[[c.id for c in r.parent.children] == [r.id], r.parent.parent.children[0].id == r.parent.id]"
            )
            .await,
        json!([true, true])
    );
    for (canvas, expected) in [
        ("add.s(1, 1) | add.si(20, 22)", json!(42)),
        (
            "group(add.s(1, 2), add.s(3, 4) | add.s(5), group(add.s(6, 7), add.s(8, 9)))",
            json!([3, 12, 13, 17]),
        ),
        ("chord([add.s(n, n) for n in range(20)], total.s())", json!(380)),
        (
            "chord([add.s(n, n) for n in range(20)], pass_on.s())",
            json!((0..20).map(|n| 2 * n).collect::<Vec<_>>()),
        ),
        ("chord([], total.s())", json!(0)),
        (
            "chord([add.s(1, 2), add.s(3, 4) | add.s(5)], total.s()) | add.s(100)",
            json!(115),
        ),
        (
            "add.s(1, 1) | group(add.s(2), add.s(3)) | total.s() | add.s(100)",
            json!(109),
        ),
        (
            "add.s(1, 1) | group(add.s(2), add.s(3)) | total.s() | group(add.s(1), add.s(2)) | total.s()",
            json!(21),
        ),
        ("add.s(1, 1) | group(add.s(2), add.s(3))", json!([4, 5])),
        (
            "chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())",
            json!(12),
        ),
        (
            "chord([add.s(1, 1)], group(pass_on.s(), total.s()))",
            json!([[2], 2]),
        ),
        (
            "chain(chain(add.s(1, 1), add.s(2)), chain(add.s(3), add.s(4)))",
            json!(11),
        ),
        (
            "add.s(1, 1) | add.s(2).set(countdown=0.2, priority=5) | add.s(3)",
            json!(7),
        ),
    ] {
        assert_eq!(python_value(&mut client, canvas).await, expected, "{canvas}");
    }
    no_chord_is_left(&server);
    running.stop().await.unwrap();
}

async fn rust_runs_callbacks_of_python(python: Python) {
    let server = Server::start();
    let (running, journal) = rust_worker(&server, "celery");
    let mut client = canvas_client(&python, &server).await;
    client.run("pass_on.apply_async(('value',), link=[note.s(), note.si('immutable')], link_error=note.s()).get(timeout=20)").await;
    let mut lines = journal.until(2).await;
    lines.sort();
    assert_eq!(lines, ["immutable", "value"]);
    let id = client
        .run("r = signature('flaky', (1000,), app=app).apply_async(link_error=note.s(), link=note.s()); r.id")
        .await;
    assert_eq!(journal.until(3).await[2], id.as_str().unwrap());
    client
        .run("add.apply_async((1, 2), link=(add.s(3) | pass_on.s() | note.si('after a chain'))).id")
        .await;
    assert_eq!(journal.until(4).await[3], "after a chain");
    client
        .run("add.apply_async((1, 2), link=chord([add.s(3), add.s(4)], note.si('after a chord'))).id")
        .await;
    assert_eq!(journal.until(5).await[4], "after a chord");
    client
        .run("signature('flaky', (2,), app=app).apply_async(link=note.si('after retries')).id")
        .await;
    assert_eq!(journal.until(6).await[5], "after retries");
    running.stop().await.unwrap();
}

async fn python_sees_failures_of_rust(python: Python) {
    let server = Server::start();
    let (running, journal) = rust_worker(&server, "celery");
    let mut client = canvas_client(&python, &server).await;
    client
        .run(
            "bad = signature('flaky', (1000,), app=app, immutable=True)\n\
             def failure(canvas):\n    r = canvas.apply_async()\n    try: r.get(timeout=20)\n    except Exception: return [type(r.result).__name__, str(r.result)]",
        )
        .await;
    assert_eq!(
        client.run("failure(add.s(1, 1) | bad | add.s(3))").await,
        json!(["OperationalError", "connection refused"])
    );
    let failed = client
        .run("failure(chord([add.s(1, 1), bad, add.s(2, 2)], total.s()))")
        .await;
    assert_eq!(failed[0], "ChordError");
    let text = failed[1].as_str().unwrap();
    assert!(
        text.starts_with("Dependency ") && text.ends_with(" raised OperationalError('connection refused')"),
        "{text}"
    );
    let failed = client.run("failure(chord([add.s(1, 1), chord([bad, add.s(1, 1)], total.s())], total.s().on_error(note.s())))").await;
    assert_eq!(failed[0], "ChordError", "the outer chord fails too");
    assert_eq!(journal.until(1).await.len(), 1, "the errback runs");
    let failed = client
        .run("failure(add.s(1, 1) | bad | group(add.s(1), add.s(2)) | total.s() | add.s(1))")
        .await;
    assert_eq!(failed[0], "OperationalError");
    running.stop().await.unwrap();
}

async fn rust_reads_arguments_and_retry_limits_of_python(python: Python) {
    let server = Server::start();
    let (running, _) = rust_worker(&server, "celery");
    let mut client = canvas_client(&python, &server).await;
    for (canvas, expected) in [
        ("add.s(b=2, a=1)", json!(3)),
        (
            "signature('optional', (1,), {'third': 3}, app=app)",
            json!([1, null, 3]),
        ),
        (
            "signature('optional', kwargs={'first': 1}, app=app)",
            json!([1, null, null]),
        ),
        ("flaky.s(5).set(max_retries=5)", json!(5)),
    ] {
        assert_eq!(python_value(&mut client, canvas).await, expected, "{canvas}");
    }
    client
        .run("r = flaky.s(1).set(max_retries=0).apply_async()")
        .await;
    let failed = client.run("r.get(timeout=20, propagate=False); r.status").await;
    assert_eq!(failed, json!("FAILURE"));
    running.stop().await.unwrap();
}

struct BothSides {
    server: Server,
    rust: Running,
    python: PythonWorker,
    canvas_client: PythonClient,
}

impl BothSides {
    /// Starts a Python worker for the queues `py` and `both`, and a Rust worker for `rs` and `both`.
    async fn start(python: &Python) -> Self {
        let server = Server::start();
        let journal = Journal::default();
        let rust = worker(Arc::new(server.broker()), &journal, &CancellationToken::new())
            .queue("rs")
            .queue("both")
            .concurrency(2)
            .prefetch_multiplier(1);
        let args = ["-Q", "py,both", "--prefetch-multiplier", "1"];
        let mut canvas_client = canvas_client(python, &server).await;
        canvas_client
            .run(
                "def py(name, *args): return signature(name, args, app=app, queue='py')\n\
                 def rs(name, *args): return signature(name, args, app=app, queue='rs')",
            )
            .await;
        Self {
            rust: Running::start(rust.build(), PATIENCE),
            python: python.worker(&server.url(), &args, &[]).await,
            server,
            canvas_client,
        }
    }

    async fn stop(self) {
        self.python.stop().await;
        self.rust.stop().await.unwrap();
    }
}

async fn both_sides_run_parts_of_a_canvas(python: Python) {
    let mut both = BothSides::start(&python).await;
    let client = Client::new(Arc::new(both.server.broker()));
    let (py, rs) = (
        |signature: Signature| signature.queue("py"),
        |signature: Signature| signature.queue("rs"),
    );
    let across = chain([py(add(&[1, 1])), rs(add(&[1])), py(add(&[1])), rs(add(&[1]))]);
    assert_eq!(value(&client, across).await, Ok(json!(5)));
    for body in [py(total()), rs(total())] {
        let header = [
            py(add(&[1, 1])),
            rs(add(&[2, 2])),
            py(add(&[3, 3])),
            rs(add(&[4, 4])),
        ];
        assert_eq!(value(&client, chord(header, body)).await, Ok(json!(20)));
    }
    for (canvas, expected) in [
        (
            "py('add', 1, 1) | rs('add', 1) | py('add', 1) | rs('add', 1)",
            json!(5),
        ),
        (
            "chord([py('add', 1, 1), rs('add', 2, 2), py('add', 3, 3)], rs('total'))",
            json!(12),
        ),
        (
            "chord([rs('add', 1, 1), py('add', 2, 2), rs('add', 3, 3)], py('pass'))",
            json!([2, 4, 6]),
        ),
        (
            "py('add', 1, 1) | group(rs('add', 1), py('add', 2)) | rs('total') | group(py('add', 1), rs('add', 2)) | py('total')",
            json!(17),
        ),
        (
            "rs('add', 1, 1) | group(rs('add', 1), py('add', 2)) | py('total') | group(py('add', 1), rs('add', 2)) | rs('total')",
            json!(17),
        ),
        (
            "chord([chord([py('add', 1, 1), rs('add', 2, 2)], py('total')), rs('add', 3, 3)], rs('total'))",
            json!(12),
        ),
        (
            "chord([chord([py('add', 1, 1), rs('add', 2, 2)], rs('total')), py('add', 3, 3)], py('total'))",
            json!(12),
        ),
    ] {
        assert_eq!(
            python_value(&mut both.canvas_client, canvas).await,
            expected,
            "{canvas}"
        );
    }
    no_chord_is_left(&both.server);
    both.stop().await;
}

async fn both_sides_run_parts_of_a_failing_canvas(python: Python) {
    let both = BothSides::start(&python).await;
    let client = Client::new(Arc::new(both.server.broker()));
    let broken = |queue: &str| match queue {
        "py" => Signature::new("broken").arg("permanent").queue(queue),
        _ => Signature::new("broken").queue(queue),
    };
    for (one, other) in [("py", "rs"), ("rs", "py")] {
        let sent = client
            .apply(chord(
                [add(&[1, 1]).queue(other), broken(one)],
                total().queue(other),
            ))
            .await
            .unwrap();
        let failed = sent.wait(PATIENCE).await.unwrap_err();
        let WaitError::Failed { exception, .. } = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(exception.type_name, "ChordError");
        assert!(
            exception.message.contains("('permanent')"),
            "{}",
            exception.message
        );
        let sent = client
            .apply(chain([
                add(&[1, 1]).queue(other),
                broken(one).immutable(),
                add(&[1]).queue(other),
            ]))
            .await
            .unwrap();
        assert!(sent.wait(PATIENCE).await.is_err());
        assert_eq!(final_result(&client, sent.id()).await.status, Status::Failure);
    }
    both.stop().await;
}

async fn many_chords_on_both_sides_run_their_bodies_once(python: Python) {
    let both = BothSides::start(&python).await;
    let client = Client::new(Arc::new(both.server.broker()));
    let journal = Signature::new("note").queue("py").immutable();
    let mut sent = Vec::new();
    for number in 0..20 {
        let header = (0..6).map(|part| add(&[number, part]).queue("both"));
        let body = total()
            .queue("both")
            .on_success(journal.clone().arg(number.to_string()));
        sent.push(client.apply(chord(header, body)).await.unwrap());
    }
    for (number, chord) in (0_i64..).zip(&sent) {
        assert_eq!(chord.wait(PATIENCE).await, Ok(json!(6 * number + 15)));
    }
    let mut lines: Vec<u32> = python_journal(&both.server, 20)
        .await
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..20).collect::<Vec<_>>());
    no_chord_is_left(&both.server);
    both.stop().await;
}
