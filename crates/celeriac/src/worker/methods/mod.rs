//! Remote control methods, with the names, arguments and replies of Celery's workers: queries in
//! [`inspect`], revocation in [`revoke`], and changes to the worker in [`steer`].

mod inspect;
mod reply;
mod revoke;
mod steer;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use self::reply::{Failure, MethodResult, ok, one_or_many};
use super::{mingle, shared::Shared};

/// Calls the method `name` and returns its reply, or `None` if Celery's workers do not reply to this method.
///
/// # Errors
/// Returns an error if there is no such method or the arguments are invalid.
pub(super) async fn call(
    shared: &Shared,
    name: &str,
    arguments: Map<String, Value>,
) -> Result<Option<Value>, Failure> {
    if name == "shutdown" {
        steer::shutdown(shared);
        return Ok(None);
    }
    reply(shared, name, arguments).await.map(Some)
}

async fn reply(shared: &Shared, name: &str, arguments: Map<String, Value>) -> MethodResult {
    // Queries arrive on another connection than messages. A client that sends a task and then asks for it expects it, as
    // Celery's workers read both from one connection.
    let is_about_tasks = matches!(
        name,
        "active"
            | "dump_active"
            | "reserved"
            | "dump_reserved"
            | "scheduled"
            | "dump_schedule"
            | "query_task"
    );
    if is_about_tasks {
        shared.catch_up().await;
    }
    match name {
        "ping" => ok("pong"),
        "hello" => Ok(hello(shared, &read(name, arguments)?)),
        "clock" => Ok(json!({"clock": shared.clock.value()})),
        "stats" => Ok(inspect::stats(shared)),
        "active" | "dump_active" => Ok(inspect::active(shared)),
        "reserved" | "dump_reserved" => Ok(inspect::reserved(shared)),
        "scheduled" | "dump_schedule" => inspect::scheduled(shared).await,
        "query_task" => {
            let Ids { ids } = read(name, arguments)?;
            inspect::query_task(shared, &ids).await
        }
        "registered" | "dump_tasks" => {
            let TaskFields { taskinfoitems } = read(name, arguments)?;
            Ok(inspect::registered(shared, taskinfoitems))
        }
        "revoked" | "dump_revoked" => Ok(json!(shared.revoked.ids())),
        "active_queues" => Ok(inspect::active_queues(shared)),
        "conf" | "dump_conf" => Ok(inspect::conf(shared)),
        "report" => ok(inspect::report(shared)),
        "revoke" => revoke::revoke(shared, read(name, arguments)?).await,
        "terminate" => {
            let mut revoke: revoke::Revoke = read(name, arguments)?;
            revoke.termination.terminate = true;
            revoke::revoke(shared, revoke).await
        }
        "revoke_by_stamped_headers" => revoke::revoke_by_stamps(shared, read(name, arguments)?),
        "rate_limit" => steer::rate_limit(shared, &read(name, arguments)?),
        "time_limit" => steer::time_limit(shared, &read(name, arguments)?),
        "add_consumer" => steer::add_consumer(shared, &read(name, arguments)?),
        "cancel_consumer" => steer::cancel_consumer(shared, &read(name, arguments)?),
        "pool_grow" => steer::pool_grow(shared, &read(name, arguments)?),
        "pool_shrink" => steer::pool_shrink(shared, &read(name, arguments)?),
        "pool_restart" => Err(Failure::Value("Pool restarts not enabled".to_owned())),
        "autoscale" => Err(Failure::Value("Autoscale not enabled".to_owned())),
        "enable_events" => steer::enable_events(shared, true),
        "disable_events" => steer::enable_events(shared, false),
        "heartbeat" => Ok(steer::heartbeat(shared).await),
        // Celery's workers use this method to elect one worker for a job; this crate has no such jobs.
        "election" => Ok(Value::Null),
        _ => Err(Failure::NoSuchMethod(name.chars().take(100).collect())),
    }
}

#[derive(Deserialize)]
struct Hello {
    from_node: String,
    revoked: Option<Value>,
}

#[derive(Deserialize)]
struct TaskFields {
    #[serde(default)]
    taskinfoitems: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Ids {
    #[serde(deserialize_with = "one_or_many")]
    ids: Vec<String>,
}

fn read<T: DeserializeOwned>(method: &str, arguments: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::Arguments(format!("{method}() {error}")))
}

/// Handles the `hello` of a worker that has just started: adds its revoked ids, and replies with this worker's
/// revoked ids and clock. The reply to this worker's own `hello` is null.
fn hello(shared: &Shared, hello: &Hello) -> Value {
    if hello.from_node == shared.hostname {
        return Value::Null;
    }
    let known = shared.revoked.ids();
    shared.revoked.add(mingle::revoked(hello.revoked.as_ref()));
    json!({"revoked": known, "clock": shared.clock.tick()})
}
