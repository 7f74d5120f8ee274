//! What a Rust task sees of the message that Python sent, and what Python sees of what the task does.

use std::{sync::Arc, time::Duration};

use celeriac::{
    Broker, Client, Decimal, Exception, Exchange, Retry, Signature, TaskContext, TaskError, TaskOptions,
    Timestamp, Typed, Uuid, Worker, WorkerBuilder, group,
};
use serde_json::{Value, json};

use crate::{
    celery::Python,
    patient_broker,
    server::Server,
    support::{Journal, PATIENCE, Running, eventually},
    with_every_celery,
};

with_every_celery! {
    a_task_sees_its_message
    an_unknown_keyword_argument_is_a_type_error
    a_task_sets_its_own_states
    tasks_that_a_task_sends_are_its_children
    exceptions_keep_all_their_arguments
    a_retry_has_its_own_limit_queue_priority_expiry_and_arguments
    ignored_and_rejected_tasks_store_no_result
    exchanges_are_bound_and_routes_are_followed
    values_of_python_types_are_typed
}

type TypedValues = (
    Typed<Timestamp>,
    Typed<Uuid>,
    Typed<Decimal>,
    Typed<Vec<u8>>,
    Typed<Vec<u8>>,
    Typed<jiff::civil::Date>,
    Typed<jiff::civil::Time>,
);

fn tasks(broker: Arc<dyn Broker>, journal: &Journal) -> WorkerBuilder {
    let options = TaskOptions::new;
    let (again, moved) = (journal.clone(), journal.clone());
    Worker::builder(broker)
        .hostname("celery@rust")
        .task(
            "see",
            options().extra_kwargs(true),
            async |context: TaskContext, (first,): (i64,)| {
                let message = context.message();
                let headers = &message.headers;
                Ok::<_, TaskError>(json!({
                    "first": first,
                    "args": message.args,
                    "kwargs": message.kwargs,
                    "tenant": headers.extra["x-tenant"],
                    "eta": headers.eta.map(|eta| eta.to_string()),
                    "expires": headers.expires.map(|expires| expires.to_string()),
                    "group": headers.group,
                    "group_index": headers.group_index,
                    "priority": message.properties.priority,
                    "routing_key": message.properties.delivery_info.routing_key,
                    "correlation_id": message.properties.correlation_id == Some(context.id.to_string()),
                    "timelimit": headers.timelimit.hard.map(|limit| limit.as_secs()),
                    "callbacks": message.embed.callbacks[0]["task"],
                    "stamps": headers.stamps,
                }))
            },
        )
        .task(
            "strict",
            options().parameters(&["a"]),
            async |_: TaskContext, (a,): (i64,)| Ok::<_, TaskError>(a),
        )
        .task(
            "typed",
            options(),
            async |_: TaskContext, (values,): (TypedValues,)| {
                let (at, id, ..) = &values;
                assert_eq!(at.0.to_string(), "2026-11-22T06:51:26.372432Z");
                assert_eq!(id.0.as_u128(), 7);
                Ok::<_, TaskError>(values)
            },
        )
        .task("progress", options(), async |context: TaskContext, (): ()| {
            for done in 1..=3 {
                context
                    .update_state("PROGRESS", json!({"done": done, "total": 3}))
                    .await?;
            }
            Ok::<_, TaskError>("ready")
        })
        .task(
            "sends",
            options(),
            async |context: TaskContext, (fail,): (bool,)| {
                let client = context.client();
                let child = client.send(Signature::new("strict").arg(1)).await?;
                let parts = group([Signature::new("strict").arg(2), Signature::new("strict").arg(3)]);
                let parts = client.apply(parts).await?;
                let sent = json!([child, parts.id()]);
                if fail {
                    return Err(Exception::new("ValueError", sent.to_string()).into());
                }
                Ok::<_, TaskError>(sent)
            },
        )
        .task(
            "fails",
            options(),
            async |_: TaskContext, (args,): (Vec<Value>,)| {
                Err::<(), _>(Exception::new("ValueError", "").args(args))
            },
        )
        .task(
            "retries",
            options(),
            move |context: TaskContext, (label,): (String,)| {
                let moved = moved.clone();
                async move {
                    let properties = &context.message().properties;
                    let (queue, priority, retries) = (&context.queue, properties.priority, context.retries);
                    let expires = context.message().headers.expires.is_some();
                    moved.write(format!("{label} {queue} {priority} {retries} {expires}"));
                    let retry = Retry::new(Exception::new("ValueError", "no")).countdown(Duration::ZERO);
                    let expires = "2126-01-01T00:00:00Z".parse().unwrap();
                    Err::<(), TaskError>(match retries {
                        0 => retry
                            .queue("other")
                            .priority(6)
                            .expires(expires)
                            .args(vec!["changed".into()])
                            .into(),
                        _ => retry.max_retries(1).into(),
                    })
                }
            },
        )
        .task("ignored", options(), async |_: TaskContext, (): ()| {
            Err::<(), _>(TaskError::Ignore)
        })
        .task(
            "rejected",
            options(),
            move |context: TaskContext, (requeue,): (bool,)| {
                let again = again.clone();
                async move {
                    again.write(context.redelivered.to_string());
                    if context.redelivered {
                        return Ok("accepted");
                    }
                    let reason = "not mine".to_owned();
                    Err(TaskError::Reject { requeue, reason })
                }
            },
        )
}

async fn a_task_sees_its_message(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let worker = tasks(Arc::new(patient_broker(&server)), &Journal::default());
    let running = Running::start(worker.build(), PATIENCE);
    let send = r#"
import datetime
past = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
future = datetime.datetime(2126, 1, 1, tzinfo=datetime.timezone.utc)
see = app.signature('see', args=[7], kwargs={'color': 'blue', 'n': 1})
see.stamp(user='ada')
see.link(app.signature('note'))
result = see.apply_async(
    headers={'x-tenant': {'id': 7}}, eta=past, expires=future, group_id='g', group_index=3, priority=5, time_limit=60)
result.get(timeout=20)"#;
    assert_eq!(
        client.run(send).await,
        json!({
            "first": 7,
            "args": [7],
            "kwargs": {"color": "blue", "n": 1},
            "tenant": {"id": 7},
            "eta": "2026-01-01T00:00:00Z",
            "expires": "2126-01-01T00:00:00Z",
            "group": "g",
            "group_index": 3,
            "priority": 5,
            "routing_key": "celery",
            "correlation_id": true,
            "timelimit": 60,
            "callbacks": "note",
            "stamps": {"user": "ada"},
        }),
        "Celery {}",
        python.celery
    );
    running.stop().await.unwrap();
}

async fn an_unknown_keyword_argument_is_a_type_error(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let worker = tasks(Arc::new(patient_broker(&server)), &Journal::default());
    let running = Running::start(worker.build(), PATIENCE);
    let send = "
def error(*args, **kwargs):
    try:
        return app.send_task('strict', args, kwargs).get(timeout=20)
    except TypeError as error:
        return str(error)
[error(1), error(a=1), error(1, typo=2)]";
    let expected = "strict() got an unexpected keyword argument 'typo'";
    assert_eq!(client.run(send).await, json!([1, 1, expected]));
    running.stop().await.unwrap();
}

async fn a_task_sets_its_own_states(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let send = "
import celery.result
result = app.send_task('progress')
seen = []
store.set('ready', 1)
result";
    let worker = tasks(Arc::new(patient_broker(&server)), &Journal::default());
    client.run(send.trim_end_matches("result")).await;
    let running = Running::start(worker.build(), PATIENCE);
    let wait = "
value = result.get(timeout=20, on_message=lambda message: seen.append([message['status'], message['result']]))
[value, result.state, seen]";
    let progress = |done: i64| json!(["PROGRESS", {"done": done, "total": 3}]);
    let got = client.run(wait).await;
    assert_eq!((&got[0], &got[1]), (&json!("ready"), &json!("SUCCESS")));
    let seen = got[2].as_array().unwrap();
    // States stored before the client subscribed are not announced to it.
    let all = [progress(1), progress(2), progress(3), json!(["SUCCESS", "ready"])];
    assert!(all.ends_with(seen), "{seen:?}");
    running.stop().await.unwrap();
}

async fn tasks_that_a_task_sends_are_its_children(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let worker = tasks(Arc::new(patient_broker(&server)), &Journal::default());
    let running = Running::start(worker.build(), PATIENCE);
    let send = "
import json
def sent(fail):
    result = app.send_task('sends', [fail])
    try:
        value = result.get(timeout=20)
    except ValueError as error:
        value = json.loads(str(error))
    children = result.children
    leaves = [children[0]] + children[1].children
    values = [leaf.get(timeout=20) for leaf in leaves]
    meta = [app.backend.get_task_meta(leaf.id) for leaf in leaves]
    return [[child.id for child in children] == value, values, all(one['parent_id'] == result.id for one in meta)]
[sent(False), sent(True)]";
    let expected = json!([true, [1, 2, 3], true]);
    assert_eq!(client.run(send).await, json!([expected, expected]));
    let graph = "
result = app.send_task('sends', [False])
result.get(timeout=20)
len(list(result.collect(intermediate=True, timeout=20)))";
    assert!(client.run(graph).await.as_i64().unwrap() >= 3);
    running.stop().await.unwrap();
}

async fn exceptions_keep_all_their_arguments(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let worker = tasks(Arc::new(patient_broker(&server)), &Journal::default());
    let running = Running::start(worker.build(), PATIENCE);
    let send = "
def raised(*args):
    try:
        app.send_task('fails', [args]).get(timeout=20)
    except ValueError as error:
        return [list(error.args), str(error)]
[raised(), raised('no'), raised(7), raised('no', 7, None)]";
    assert_eq!(
        client.run(send).await,
        json!([
            [[], ""],
            [["no"], "no"],
            [[7], "7"],
            [["no", 7, null], "('no', 7, None)"]
        ])
    );
    running.stop().await.unwrap();
}

async fn a_retry_has_its_own_limit_queue_priority_expiry_and_arguments(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let journal = Journal::default();
    let worker = tasks(Arc::new(patient_broker(&server)), &journal);
    let running = Running::start(worker.queue("celery").queue("other").build(), PATIENCE);
    let send = "
result = app.send_task('retries', ['first'])
try:
    result.get(timeout=20)
except ValueError as error:
    failed = [str(error), result.state]
failed";
    assert_eq!(client.run(send).await, json!(["no", "FAILURE"]));
    assert_eq!(
        journal.lines(),
        ["first celery 0 0 false", "changed other 6 1 true"]
    );
    running.stop().await.unwrap();
}

async fn ignored_and_rejected_tasks_store_no_result(python: Python) {
    let server = Server::start();
    let mut client = python.client(&server.url());
    let journal = Journal::default();
    let broker: Arc<dyn Broker> = Arc::new(patient_broker(&server));
    let running = Running::start(tasks(broker.clone(), &journal).build(), PATIENCE);
    let send = "
ignored = app.send_task('ignored')
dropped = app.send_task('rejected', [False])
requeued = app.send_task('rejected', [True])
requeued.get(timeout=20)";
    assert_eq!(client.run(send).await, json!("accepted"));
    eventually("the tasks are settled", async || {
        (broker.depth("celery").await.unwrap().unacked == 0).then_some(())
    })
    .await;
    assert_eq!(
        client.run("[ignored.state, dropped.state]").await,
        json!(["PENDING", "PENDING"])
    );
    let mut lines = journal.lines();
    lines.sort();
    assert_eq!(lines, ["false", "false", "true"]);
    let letters = broker.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "the task rejected its message: not mine");
    running.stop().await.unwrap();
}

async fn exchanges_are_bound_and_routes_are_followed(python: Python) {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(patient_broker(&server));
    let journal = Journal::default();
    let worker = tasks(broker.clone(), &journal)
        .bind("tq", Exchange::topic("ex"), "a.#")
        .bind("dq", Exchange::direct("direct"), "key")
        .queue("celery")
        .queue("routed")
        .route("strict*", "routed");
    let running = Running::start(worker.build(), PATIENCE);
    eventually("the bindings are declared", async || {
        let members: Vec<String> = redis::cmd("SMEMBERS")
            .arg("_kombu.binding.direct")
            .query(&mut server.connection())
            .unwrap();
        (!members.is_empty()).then_some(())
    })
    .await;
    let mut client = python.client(&server.url());
    let send = "
from kombu import Exchange, Queue
app.conf.task_queues = [
    Queue('tq', Exchange('ex', type='topic'), routing_key='a.#'),
    Queue('dq', Exchange('direct', type='direct'), routing_key='key'),
    Queue('celery'),
]
with app.connection_for_write() as connection:
    bound = {name: sorted(connection.default_channel.get_table(name)) for name in ['ex', 'direct']}
ex = Exchange('ex', type='topic')
topic = app.send_task('strict', [1], exchange='ex', routing_key='a.b.c', declare=[ex]).get(timeout=20)
direct = app.send_task('strict', [2], exchange='direct', routing_key='key').get(timeout=20)
sent = app.send_task('sends', [False], queue='celery')
sent.get(timeout=20)
[topic, direct, bound]";
    let expected = json!([1, 2, {
        "ex": [["a.#", r"^a\..*?$", "tq"]],
        "direct": [["key", "", "dq"]],
    }]);
    assert_eq!(client.run(send).await, expected, "Celery {}", python.celery);
    running.stop().await.unwrap();
    let routed = Client::new(broker.clone()).route("x.*", "elsewhere");
    routed.send(Signature::new("x.y")).await.unwrap();
    assert_eq!(broker.depth("elsewhere").await.unwrap().waiting, 1);
    routed.send(Signature::new("x.y").queue("named")).await.unwrap();
    assert_eq!(broker.depth("named").await.unwrap().waiting, 1);
    let declared: bool = redis::cmd("EXISTS")
        .arg("_kombu.binding.routed")
        .query(&mut server.connection())
        .unwrap();
    assert!(
        declared,
        "the children of `sends` went to the queue of their route"
    );
}

async fn values_of_python_types_are_typed(python: Python) {
    let server = Server::start();
    let broker: Arc<dyn Broker> = Arc::new(patient_broker(&server));
    let running = Running::start(tasks(broker, &Journal::default()).build(), PATIENCE);
    let mut client = python.client(&server.url());
    let send = "
import datetime, decimal, uuid
values = [datetime.datetime(2026, 11, 22, 6, 51, 26, 372432, tzinfo=datetime.timezone.utc), uuid.UUID(int=7),
          decimal.Decimal('1.10'), b'abc', bytes([255, 0]), datetime.date(2026, 11, 22), datetime.time(6, 51, 26)]
app.send_task('typed', [values]).get(timeout=20) == values";
    assert_eq!(client.run(send).await, json!(true), "Celery {}", python.celery);
    running.stop().await.unwrap();
}
