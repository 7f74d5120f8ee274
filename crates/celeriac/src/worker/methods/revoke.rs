//! Ends tasks from outside: those that wait never run, and those that run are stopped when that is asked for. Python's
//! workers stop the process, this one drops the task's future at its next await.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{nok, ok, one_or_many, truthy};
use crate::{
    log::{info, warn},
    message::Headers,
    result::{ResultMeta, Status},
    system,
    worker::{Shared, revoked::stamped},
};

/// Results that are looked at and written at the same time.
const AT_A_TIME: usize = 32;
/// More is more than a worker remembers.
const MOST_IDS: usize = 50_000;

#[derive(Deserialize)]
pub(super) struct Revoke {
    #[serde(deserialize_with = "one_or_many")]
    task_id: Vec<String>,
    #[serde(default, deserialize_with = "truthy")]
    terminate: bool,
    #[serde(default)]
    signal: Option<Signal>,
}

/// A signal by name or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Signal {
    Number(i32),
    Name(String),
}

impl Signal {
    /// Its number on Linux. All signals do the same here, but monitors show it.
    fn number(signal: Option<&Self>) -> i32 {
        match signal {
            Some(Self::Number(number)) if *number > 0 => *number,
            Some(Self::Name(name)) => match name.strip_prefix("SIG").unwrap_or(name) {
                "HUP" => 1,
                "INT" => 2,
                "QUIT" => 3,
                "KILL" => 9,
                "USR1" => 10,
                _ => 15,
            },
            _ => 15,
        }
    }
}

impl Revoke {
    pub fn terminating(mut self) -> Self {
        self.terminate = true;
        self
    }
}

pub(super) async fn revoke(shared: &Shared, order: Revoke) -> Value {
    let ids: BTreeSet<String> = order.task_id.into_iter().collect();
    if ids.len() > MOST_IDS {
        return nok(format!("more than {MOST_IDS} ids"));
    }
    shared.revoked.add(ids.iter().cloned());
    let signal = Signal::number(order.signal.as_ref());
    let mut elsewhere = ids.clone();
    let mut terminated = BTreeSet::new();
    for entry in shared.inflight.held() {
        if !ids.contains(&entry.id) {
            continue;
        }
        elsewhere.remove(&entry.id);
        entry.orders.revoke();
        if order.terminate {
            entry.orders.terminate(signal);
            terminated.insert(entry.id.clone());
        }
    }
    mark(shared, elsewhere).await;
    info!(
        tasks = ids.len(),
        terminated = terminated.len(),
        "tasks were revoked"
    );
    if !order.terminate {
        let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        ok(format!("tasks {{{}}} flagged as revoked", ids.join(", ")))
    } else if terminated.is_empty() {
        ok("terminate: tasks unknown")
    } else {
        let terminated: Vec<String> = terminated.into_iter().collect();
        ok(format!("terminate: {}", terminated.join(", ")))
    }
}

/// Writes `REVOKED` for tasks that nobody has begun, so that who waits for them need not wait until some worker has
/// received them.
async fn mark(shared: &Shared, ids: impl IntoIterator<Item = String>) {
    let now = system::now();
    let marks = ids.into_iter().map(|id| async move {
        match shared.broker.result(&id).await? {
            None => {}
            Some(meta) if meta.status == Status::Retry => {}
            // It has ended, or another worker has begun it and will tell its end.
            Some(_) => return Ok(()),
        }
        let headers = Headers::new(String::new(), id);
        shared
            .broker
            .store_unless_ended(&ResultMeta::revoked(&headers, "revoked", now))
            .await
    });
    let failures = stream::iter(marks)
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |marked: Result<(), crate::BrokerError>| marked.err())
        .collect::<Vec<_>>()
        .await;
    if let Some(error) = failures.first() {
        warn!(tasks = failures.len(), %error, "REVOKED was not stored for tasks that wait; it will be when they are received");
    }
}

#[derive(Deserialize)]
pub(super) struct RevokeByStamps {
    headers: Stamps,
    #[serde(default, deserialize_with = "truthy")]
    terminate: bool,
    #[serde(default)]
    signal: Option<Signal>,
}

/// `{"name": value or [values]}`, or `["name=value"]` from the command line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stamps {
    Map(Map<String, Value>),
    List(Vec<String>),
}

impl Stamps {
    fn values(self) -> HashMap<String, Vec<Value>> {
        let pairs: Vec<(String, Value)> = match self {
            Self::Map(map) => map.into_iter().collect(),
            Self::List(list) => list
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect(),
        };
        let listed = |(name, value)| match value {
            Value::Array(values) => (name, values),
            value => (name, vec![value]),
        };
        pairs.into_iter().map(listed).collect()
    }
}

pub(super) fn revoke_by_stamps(shared: &Shared, order: RevokeByStamps) -> Value {
    let stamps = order.headers.values();
    for (name, values) in &stamps {
        if !shared.revoked.add_stamps(name, values) {
            return nok("too many stamps are revoked already");
        }
    }
    let names: Vec<&str> = stamps.keys().map(String::as_str).collect();
    let names = names.join(", ");
    let signal = Signal::number(order.signal.as_ref());
    let mut terminated = 0;
    for entry in shared.inflight.held() {
        let Ok(message) = entry.delivery.message() else {
            continue;
        };
        let bears = |(name, values): (&String, &Vec<Value>)| {
            let values: HashSet<String> = values.iter().map(Value::to_string).collect();
            stamped(&message.headers, name, &values)
        };
        if stamps.iter().any(bears) {
            entry.orders.revoke();
            if order.terminate {
                entry.orders.terminate(signal);
                terminated += 1;
            }
        }
    }
    info!(terminated, "tasks were revoked by stamps");
    match (order.terminate, terminated) {
        (false, _) => ok(format!("headers {names} flagged as revoked, but not terminated")),
        (true, 0) => ok(format!("headers {names} were not terminated")),
        (true, _) => ok(format!("headers {names} revoked")),
    }
}
