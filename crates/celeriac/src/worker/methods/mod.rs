//! The methods of remote control, by the names and with the arguments and replies that Celery's workers have. What
//! only looks is in [`inspect`], what ends tasks in [`revoke`], what changes
//! the worker in [`steer`].

mod inspect;
mod revoke;
mod steer;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{Shared, mingle};

/// Why a method was not carried out, in the words of Celery's replies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Failure {
    #[error("KeyError('{0}')")]
    NoSuchMethod(String),
    #[error("TypeError({0:?})")]
    Arguments(String),
    #[error("ValueError('{0}')")]
    Value(String),
}

type Answer = Result<Value, Failure>;

/// Calls the method `name`. The answer is `None` where Celery's workers do not reply.
///
/// # Errors
/// When there is none, or the arguments do not fit.
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

async fn reply(shared: &Shared, name: &str, arguments: Map<String, Value>) -> Answer {
    match name {
        "ping" => Ok(ok("pong")),
        "hello" => {
            let Hello { from_node, revoked } = read(name, arguments)?;
            Ok(hello(shared, &from_node, revoked.as_ref()))
        }
        "clock" => Ok(json!({"clock": shared.clock.value()})),
        "stats" => Ok(inspect::stats(shared)),
        "active" | "dump_active" => Ok(inspect::active(shared)),
        "reserved" | "dump_reserved" => Ok(inspect::reserved(shared)),
        "scheduled" | "dump_schedule" => Ok(inspect::scheduled(shared)),
        "query_task" => {
            let Ids { ids } = read(name, arguments)?;
            Ok(inspect::query_task(shared, &ids))
        }
        "registered" | "dump_tasks" => Ok(inspect::registered(shared)),
        "revoked" | "dump_revoked" => Ok(json!(shared.revoked.ids())),
        "active_queues" => Ok(inspect::active_queues(shared)),
        "conf" | "dump_conf" => Ok(inspect::conf(shared)),
        "report" => Ok(ok(inspect::report(shared))),
        "revoke" => Ok(revoke::revoke(shared, read(name, arguments)?).await),
        "terminate" => {
            let order: revoke::Revoke = read(name, arguments)?;
            Ok(revoke::revoke(shared, order.terminating()).await)
        }
        "revoke_by_stamped_headers" => Ok(revoke::revoke_by_stamps(shared, read(name, arguments)?)),
        "rate_limit" => Ok(steer::rate_limit(shared, &read(name, arguments)?)),
        "time_limit" => steer::time_limit(shared, &read(name, arguments)?),
        "add_consumer" => Ok(steer::add_consumer(shared, &read(name, arguments)?)),
        "cancel_consumer" => Ok(steer::cancel_consumer(shared, &read(name, arguments)?)),
        "pool_grow" => steer::pool_grow(shared, &read(name, arguments)?),
        "pool_shrink" => steer::pool_shrink(shared, &read(name, arguments)?),
        "pool_restart" => Err(Failure::Value("Pool restarts not enabled".to_owned())),
        "autoscale" => Err(Failure::Value("Autoscale not enabled".to_owned())),
        "enable_events" => Ok(steer::enable_events(shared, true)),
        "disable_events" => Ok(steer::enable_events(shared, false)),
        "heartbeat" => Ok(steer::heartbeat(shared).await),
        // Between Celery's workers, about who does something that one of them is to do.
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
struct Ids {
    #[serde(deserialize_with = "one_or_many")]
    ids: Vec<String>,
}

/// A string, or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    OneOrMany::deserialize(deserializer).map(|ids| match ids {
        OneOrMany::One(id) => vec![id],
        OneOrMany::Many(ids) => ids,
    })
}

/// What Python takes for true: Flower says 1.
fn truthy<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Null => false,
        Value::Bool(value) => value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    })
}

fn read<T: DeserializeOwned>(method: &str, arguments: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::Arguments(format!("{method}() {error}")))
}

fn nok(value: impl Into<Value>) -> Value {
    json!({"error": value.into()})
}

fn ok(value: impl Into<Value>) -> Value {
    json!({"ok": value.into()})
}

/// The greeting of a worker that has just started: what it ought to know. Its own is not answered.
fn hello(shared: &Shared, from_node: &str, revoked: Option<&Value>) -> Value {
    if from_node == shared.hostname {
        return Value::Null;
    }
    let known = shared.revoked.ids();
    shared.revoked.add(mingle::revoked(revoked));
    json!({"revoked": known, "clock": shared.clock.forward()})
}
