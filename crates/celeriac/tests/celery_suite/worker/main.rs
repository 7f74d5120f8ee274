//! Worker for Celery's integration suite: registers the tasks of its module `t.integration.tasks` under the same
//! names, with the same behaviour. Arguments: the server's URL, the worker's name, the concurrency.

#![expect(clippy::expect_used, reason = "a test program may panic")]

mod canvases;
mod retries;
mod values;

use std::{fs::OpenOptions, io::Write, sync::Arc, time::Duration};

use celeriac::{
    Broker, CancellationToken, Exception, RedisBroker, RedisConfig, TaskContext, TaskError, TaskOptions,
    Worker, WorkerBuilder,
};
use redis::Cmd;
use serde_json::{Map, Value};

use self::values::{is_true, plus, sum, times};

/// Module of the tasks, and prefix of their names.
const MODULE: &str = "t.integration.tasks";

type Returned<T = Value> = Result<T, TaskError>;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, hostname, concurrency] = arguments.as_slice() else {
        panic!("usage: <url> <hostname> <concurrency>");
    };
    let config = RedisConfig::new(url.as_str());
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config).expect("the URL is valid"));
    let worker = Worker::builder(broker)
        .hostname(hostname.as_str())
        .concurrency(concurrency.parse().expect("the concurrency is a number"))
        // As in the configuration of the suite.
        .result_extended(true)
        .task("celery.ping", options(), async |_: TaskContext, (): ()| {
            Ok::<_, TaskError>("pong")
        });
    let worker = register(worker);
    let worker = canvases::register(retries::register(worker));
    let shutdown = CancellationToken::new();
    let on_sigterm = shutdown.clone();
    tokio::spawn(async move {
        let mut sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("signals can be received");
        sigterm.recv().await;
        on_sigterm.cancel();
    });
    let stopped = worker.build().run(shutdown, Duration::from_secs(1)).await;
    // The suite leaves some of its tasks running.
    if let Err(error) = stopped {
        tracing::warn!(%error, "stopped");
    }
}

/// Returns Celery's default options: a message is acknowledged before its task starts.
fn options() -> TaskOptions {
    TaskOptions::new().acks_late(false)
}

fn name(task: &str) -> String {
    format!("{MODULE}.{task}")
}

fn register(worker: WorkerBuilder) -> WorkerBuilder {
    let sum_options = || options().parameters(&["numbers", "pause_time"]);
    let not_reachable = options()
        .soft_time_limit(Duration::from_secs(2))
        .time_limit(Duration::from_secs(1));
    worker
        .task(name("identity"), options().parameters(&["x"]), identity)
        .task(name("add"), options().parameters(&["x", "y", "z"]), add)
        .task(name("mul"), options().parameters(&["x", "y"]), mul)
        .task(
            name("write_to_file_and_return_int"),
            options().parameters(&["file_name", "i"]),
            write_to_file_and_return_int,
        )
        .task(name("add_not_typed"), options().parameters(&["x", "y"]), add_two)
        .task(
            name("add_ignore_result"),
            options().parameters(&["x", "y"]).ignore_result(true),
            add_two,
        )
        .task(name("raise_error"), options(), raise_error)
        .task(name("delayed_sum"), sum_options(), delayed_sum)
        .task(
            name("delayed_sum_with_soft_guard"),
            sum_options(),
            delayed_sum_with_soft_guard,
        )
        .task(name("tsum"), options().parameters(&["nums"]), tsum)
        .task(name("xsum"), options().parameters(&["nums"]), xsum)
        .task(
            name("print_unicode"),
            options().parameters(&["log_message", "print_message"]),
            print_unicode,
        )
        .task(
            name("return_exception"),
            options().parameters(&["e"]),
            return_exception,
        )
        .task(
            name("sleeping"),
            options().parameters(&["i"]).extra_kwargs(true),
            sleeping,
        )
        .task(name("ids"), options().parameters(&["i"]), ids)
        .task(
            name("collect_ids"),
            options().parameters(&["res", "i"]),
            collect_ids,
        )
        .task(
            name("redis_echo"),
            options().parameters(&["message", "redis_key"]),
            redis_echo,
        )
        .task(
            name("redis_echo_group_id"),
            options().parameters(&["_", "redis_key"]),
            redis_echo_group_id,
        )
        .task(
            name("redis_count"),
            options().parameters(&["redis_key"]),
            redis_count,
        )
        .task(name("fail"), options(), fail)
        .task(
            name("fail_unpickleable"),
            options().parameters(&["foo", "bar"]),
            fail_unpickleable,
        )
        .task(name("return_priority"), options(), return_priority)
        .task(name("return_properties"), options(), return_properties)
        .task(
            name("errback_old_style"),
            options().parameters(&["request_id"]),
            errback,
        )
        // Celery calls an errback with three parameters in the process of the failed task, with the task's
        // request, of which this errback uses only the id. celeriac sends all errbacks the id.
        .task(name("errback_new_style"), options(), errback)
        .task(name("replaced_with_me"), options(), replaced_with_me)
        .task(
            name("add_pydantic"),
            options().parameters(&["data"]),
            add_pydantic,
        )
        .task(
            name("add_pydantic_string_annotations"),
            options().parameters(&["data"]),
            add_pydantic,
        )
        .task(
            name("soft_time_limit_must_exceed_time_limit"),
            not_reachable,
            async |_: TaskContext, (): ()| Ok::<_, TaskError>(()),
        )
}

/// Runs a command on the server of the suite.
#[expect(
    clippy::disallowed_methods,
    reason = "the suite names its server in the environment, and reads the data without this crate"
)]
async fn redis(command: &Cmd) -> Returned<()> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let host = variable("REDIS_HOST", "localhost");
    let port = variable("REDIS_PORT", "6379");
    let client = redis::Client::open(format!("redis://{host}:{port}/0"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    Ok(command.query_async(&mut connection).await?)
}

/// Appends an element to a list in Redis.
async fn push(key: &str, element: &Value) -> Returned<()> {
    // kombu writes bytes as `{"__type__": "bytes", "__value__": "text"}`.
    let is_bytes = element["__type__"] == "bytes";
    let text = match if is_bytes { &element["__value__"] } else { element } {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    redis(redis::cmd("RPUSH").arg(key).arg(text)).await
}

async fn increment(key: &str) -> Returned<()> {
    redis(redis::cmd("INCR").arg(key)).await
}

fn exception_of_module(class: &str, arguments: Vec<Value>) -> Exception {
    Exception::new(class, "").args(arguments).module(MODULE)
}

async fn identity(_: TaskContext, (x,): (Value,)) -> Returned {
    Ok(x)
}

async fn add(_: TaskContext, (x, y, z): (Value, Value, Value)) -> Returned {
    let sum = plus(&x, &y)?;
    Ok(if is_true(&z) { plus(&sum, &z)? } else { sum })
}

async fn add_two(_: TaskContext, (x, y): (Value, Value)) -> Returned {
    Ok(plus(&x, &y)?)
}

async fn mul(_: TaskContext, (x, y): (Value, Value)) -> Returned {
    Ok(times(&x, &y)?)
}

async fn write_to_file_and_return_int(_: TaskContext, (file_name, i): (String, Value)) -> Returned {
    let mut file = OpenOptions::new().append(true).create(true).open(file_name)?;
    file.write_all(format!("{i}\n").as_bytes())?;
    Ok(i)
}

async fn raise_error(_: TaskContext, _: Vec<Value>) -> Returned {
    Err(Exception::new("ValueError", "deliberate error"))?
}

async fn delayed_sum(_: TaskContext, (numbers, pause_time): (Value, Option<f64>)) -> Returned {
    tokio::time::sleep(Duration::from_secs_f64(pause_time.unwrap_or(1.0))).await;
    Ok(sum(&numbers)?)
}

async fn delayed_sum_with_soft_guard(
    context: TaskContext,
    (numbers, pause_time): (Value, Option<f64>),
) -> Returned {
    let sleep = tokio::time::sleep(Duration::from_secs_f64(pause_time.unwrap_or(1.0)));
    tokio::select! {
        () = context.soft_time_limit() => Ok(0.into()),
        () = sleep => Ok(sum(&numbers)?),
    }
}

async fn tsum(_: TaskContext, (nums,): (Value,)) -> Returned {
    Ok(sum(&nums)?)
}

async fn xsum(_: TaskContext, (nums,): (Vec<Value>,)) -> Returned {
    let flat = nums.into_iter().map(|num| match num {
        Value::Array(_) => sum(&num),
        single => Ok(single),
    });
    let flat: Vec<Value> = flat.collect::<Result<_, _>>()?;
    Ok(sum(&Value::Array(flat))?)
}

#[expect(clippy::print_stdout, reason = "the task prints")]
async fn print_unicode(
    _: TaskContext,
    (log_message, print_message): (Option<String>, Option<String>),
) -> Returned<()> {
    tracing::warn!("{}", log_message.as_deref().unwrap_or("håå®ƒ valmuefrø"));
    println!("{}", print_message.as_deref().unwrap_or("hiöäüß"));
    Ok(())
}

async fn return_exception(_: TaskContext, (e,): (Value,)) -> Returned<(Value, bool)> {
    Ok((e, true))
}

async fn sleeping(_: TaskContext, (i,): (f64,)) -> Returned<()> {
    tokio::time::sleep(Duration::from_secs_f64(i)).await;
    Ok(())
}

type Ids = (Option<String>, Option<String>, Value);

async fn ids(context: TaskContext, (i,): (Value,)) -> Returned<Ids> {
    let text = |id: Option<celeriac::TaskId>| id.map(|id| id.to_string());
    Ok((text(context.root_id), text(context.parent_id), i))
}

async fn collect_ids(context: TaskContext, (res, i): (Value, Value)) -> Returned<(Value, Ids)> {
    Ok((res, ids(context, (i,)).await?))
}

async fn redis_echo(_: TaskContext, (message, key): (Value, Option<String>)) -> Returned<()> {
    push(key.as_deref().unwrap_or("redis-echo"), &message).await
}

async fn redis_echo_group_id(context: TaskContext, (_, key): (Value, Option<String>)) -> Returned<()> {
    let group = Value::from(context.message().headers.group.clone());
    push(key.as_deref().unwrap_or("redis-group-ids"), &group).await
}

async fn redis_count(_: TaskContext, (key,): (Option<String>,)) -> Returned<()> {
    increment(key.as_deref().unwrap_or("redis-count")).await
}

async fn fail(_: TaskContext, args: Vec<Value>) -> Returned {
    let arguments = std::iter::once("Task expected to fail".into()).chain(args);
    Err(exception_of_module("ExpectedException", arguments.collect()))?
}

async fn fail_unpickleable(_: TaskContext, (message, _): (Value, Value)) -> Returned {
    Err(exception_of_module("UnpickleableException", vec![message]))?
}

async fn return_priority(context: TaskContext, _: Vec<Value>) -> Returned<String> {
    Ok(format!("Priority: {}", context.message().properties.priority))
}

async fn return_properties(context: TaskContext, (): ()) -> Returned {
    Ok(serde_json::to_value(&context.message().properties)?)
}

async fn errback(_: TaskContext, (request_id,): (String,)) -> Returned<String> {
    increment(&request_id).await?;
    Ok(request_id)
}

async fn replaced_with_me(_: TaskContext, (): ()) -> Returned<bool> {
    Ok(true)
}

#[derive(serde::Deserialize)]
struct AddParameterModel {
    x: i64,
    y: i64,
}

async fn add_pydantic(_: TaskContext, (data,): (AddParameterModel,)) -> Returned<Map<String, Value>> {
    let result = ("result".to_owned(), Value::from(data.x + data.y));
    Ok(Map::from_iter([result]))
}
