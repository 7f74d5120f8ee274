//! Results in another database or server than the messages, extended results, and discarded results.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Client, Compression, Headers, Message, RedisBroker, RedisConfig, ResultBackend, ResultMeta, Signature,
    chord,
};
use serde_json::json;

use crate::{
    celery::Python,
    server::Server,
    support::{Journal, PATIENCE, Running, worker},
    with_every_celery,
};
use tokio_util::sync::CancellationToken;

with_every_celery! {
    results_are_stored_in_another_database
    results_are_stored_on_another_server
    extended_results_describe_the_call
    a_worker_discards_all_results
    compressed_results_are_read_and_kept
}

fn config(server: &Server) -> RedisConfig {
    server.config().response_timeout(Duration::from_secs(60))
}

async fn results_are_stored_in_another_database(python: Python) {
    let server = Server::start();
    let backend = server.url().replace("/0", "/1");
    separate_results(&python, &server, &backend).await;
    let kept: Vec<String> = redis::cmd("KEYS")
        .arg("celery-task*meta-*")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(kept, Vec::<String>::new());
}

async fn results_are_stored_on_another_server(python: Python) {
    let (server, other) = (Server::start(), Server::start());
    separate_results(&python, &server, &other.url()).await;
}

/// Runs tasks, retries, chains and chords whose results are stored at `backend`.
async fn separate_results(python: &Python, server: &Server, backend: &str) {
    let broker = Arc::new(RedisBroker::new(config(server).result_backend(backend)).unwrap());
    let rust = worker(broker.clone(), &Journal::default(), &CancellationToken::new());
    let running = Running::start(rust.queue("celery").queue("rust").build(), PATIENCE);
    let env = [("TEST_CELERY_BACKEND", backend)];
    let python_worker = python.worker(&server.url(), &["-Q", "python"], &env).await;
    let mut client = python.client_with(&server.url(), &env);
    let send = "
from celery import chain, chord, group
def t(name, *args, queue='rust', **options):
    return app.signature(name, args=args, **options).set(queue=queue)
def error(result):
    try:
        return result.get(timeout=20)
    except Exception as error:
        return type(error).__name__
results = [
    t('add', 1, 2).apply_async(),
    t('flaky', 2).apply_async(),
    chain(t('add', 1, 2), t('add', 3, queue='python'), t('add', 4)).apply_async(),
    chord([t('add', 1, 2), t('add', 3, 4, queue='python')], t('total')).apply_async(),
    chord([t('add', 1, 2, queue='python'), t('add', 3, 4)], t('total', queue='python')).apply_async(),
    t('panics').apply_async(),
    chord([t('add', 1, 2), t('panics')], t('total')).apply_async(),
    app.send_task('no such task', queue='rust'),
]
values = [error(result) for result in results]
states = [app.AsyncResult(result.id).state for result in results]
[values, states, app.backend.client.keys('celery-taskset-meta-*.s') != []]";
    let expected = json!([
        [3, 2, 10, 10, 10, "Panic", "Panic", "NotRegistered"],
        [
            "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS", "FAILURE", "FAILURE", "FAILURE"
        ],
        true,
    ]);
    assert_eq!(client.run(send).await, expected, "Celery {}", python.celery);
    let rust_client = Client::new(broker);
    let add = |a: i64, b: i64| Signature::new("add").arg(a).arg(b);
    let sent = rust_client
        .apply(chord(
            [add(1, 2).queue("python"), add(3, 4)],
            Signature::new("total"),
        ))
        .await
        .unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(json!(10)));
    let id = rust_client.send(add(1, 2)).await.unwrap();
    assert_eq!(rust_client.wait(&id, PATIENCE).await, Ok(json!(3)));
    assert_eq!(
        rust_client.statuses(&[id]).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .as_str(),
        "SUCCESS"
    );
    python_worker.stop().await;
    running.stop().await.unwrap();
    let left: i64 = redis::cmd("HLEN")
        .arg("unacked")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(left, 0);
}

async fn extended_results_describe_the_call(python: Python) {
    let server = Server::start();
    // A lifetime beyond the range of Redis means a century.
    let broker = Arc::new(RedisBroker::new(config(&server).result_ttl(Duration::MAX)).unwrap());
    let rust = worker(broker, &Journal::default(), &CancellationToken::new()).result_extended(true);
    let running = Running::start(rust.build(), PATIENCE);
    let mut client = python.client(&server.url());
    let send = "
def extended(result):
    result.get(timeout=20, propagate=False)
    return [result.name, result.args, result.kwargs, result.worker, result.retries, result.queue, result.state]
stamped = app.signature('add', args=[1], kwargs={'b': 2})
stamped.stamp(user='ada')
succeeded = stamped.apply_async()
chained = (app.signature('add', args=[1, 1]) | app.signature('add', args=[2])).apply_async()
meta = [extended(succeeded), extended(app.signature('flaky', args=[1]).apply_async()),
        extended(app.send_task('broken')), extended(chained)]
import json
raw = json.loads(store.get('celery-task-meta-' + succeeded.id))
[meta, raw['user'], raw['stamped_headers'], list(raw)[:5], list(raw)[-1], store.ttl('celery-task-meta-' + succeeded.id) > 10**9]";
    let call = |name: &str, args, kwargs, retries: u32, state: &str| {
        json!([name, args, kwargs, "celery@test", retries, "celery", state])
    };
    assert_eq!(
        client.run(send).await,
        json!([
            [
                call("add", json!([1]), json!({"b": 2}), 0, "SUCCESS"),
                call("flaky", json!([1]), json!({}), 1, "SUCCESS"),
                call("broken", json!([]), json!({}), 0, "FAILURE"),
                call("add", json!([2, 2]), json!({}), 0, "SUCCESS"),
            ],
            "ada",
            ["user"],
            ["status", "result", "traceback", "children", "date_done"],
            "task_id",
            true,
        ]),
        "Celery {}",
        python.celery
    );
    running.stop().await.unwrap();
}

async fn a_worker_discards_all_results(python: Python) {
    let server = Server::start();
    let broker = Arc::new(RedisBroker::new(config(&server)).unwrap());
    let journal = Journal::default();
    let rust = worker(broker, &journal, &CancellationToken::new()).ignore_result(true);
    let running = Running::start(rust.build(), PATIENCE);
    let mut client = python.client(&server.url());
    let send = "
from celery import chord
add.delay(1, 2)
chord([add.s(1, 2), add.s(3, 4)], total.s() | note.si('body')).apply_async()
store.keys('celery-task-meta-*')";
    client.run(send).await;
    assert_eq!(journal.until(1).await, ["body"]);
    assert_eq!(client.run("store.keys('celery-task-meta-*')").await, json!([]));
    running.stop().await.unwrap();
}

async fn compressed_results_are_read_and_kept(python: Python) {
    let server = Server::start();
    let broker = Arc::new(RedisBroker::new(config(&server)).unwrap());
    let rust = worker(broker.clone(), &Journal::default(), &CancellationToken::new());
    let running = Running::start(rust.result_compression(Compression::Zlib).build(), PATIENCE);
    let client = Client::new(broker.clone());
    let long = "x".repeat(10_000);
    let send = async |value: &str| client.send(Signature::new("pass").arg(value)).await.unwrap();
    let stored = |id: &str| -> Vec<u8> {
        let mut get = redis::cmd("GET");
        get.arg(format!("celery-task-meta-{id}"));
        get.query(&mut server.connection()).unwrap()
    };
    let (short, large) = (send("short").await, send(&long).await);
    assert_eq!(client.wait(&short, PATIENCE).await, Ok(json!("short")));
    assert_eq!(client.wait(&large, PATIENCE).await, Ok(json!(long)));
    assert!(stored(&large).len() < 500, "{}", stored(&large).len());
    let message = client.result(&large).await.unwrap().unwrap();
    let revoked = ResultMeta::revoked(
        &headers(&message.task_id),
        "revoked",
        celeriac::Timestamp::UNIX_EPOCH,
    );
    broker.store_result(&revoked).await.unwrap();
    assert_eq!(
        client.wait(&large, PATIENCE).await,
        Ok(json!(long)),
        "SUCCESS is never replaced"
    );
    // Earlier versions cannot read compressed results.
    if python.celery.starts_with("5.7") {
        let mut client = python.client(&server.url());
        let read = format!(
            "[app.AsyncResult('{large}').get(timeout=20), pass_on.delay('y' * 9999).get(timeout=20)]"
        );
        assert_eq!(client.run(&read).await, json!([long, "y".repeat(9999)]));
    }
    running.stop().await.unwrap();
}

/// Returns the headers of a message of the task with this id.
fn headers(id: &str) -> Headers {
    let message = json!({
        "body": "[[], {}, {}]", "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"task": "pass", "id": id},
        "properties": {"delivery_tag": "1", "delivery_info": {}},
    });
    Message::decode(message.to_string().as_bytes()).unwrap().headers
}
