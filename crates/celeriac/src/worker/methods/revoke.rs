//! Revocation of tasks: waiting tasks never run, and running tasks are terminated on request. Python's workers
//! stop the process; this worker drops the task's future at its next await point.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::reply::{Failure, MethodResult, ok, one_or_many, truthy};
use crate::{
    log::{info, warn},
    message::Headers,
    repr,
    result::{ResultMeta, Status},
    system,
    task_id::TaskId,
    worker::{
        Shared,
        inflight::Entry,
        revoked::{self, has_stamp},
    },
};

/// Maximum number of results read and written concurrently.
const CONCURRENCY: usize = 32;
/// Maximum number of ids in a command: the number of ids that a worker remembers.
const MAX_IDS: usize = 50_000;

#[derive(Deserialize)]
pub(super) struct Revoke {
    #[serde(deserialize_with = "one_or_many")]
    task_id: Vec<String>,
    #[serde(flatten)]
    pub(super) termination: Termination,
}

#[derive(Deserialize)]
pub(super) struct Termination {
    #[serde(default, deserialize_with = "truthy")]
    pub(super) terminate: bool,
    #[serde(default)]
    signal: Option<Signal>,
}

impl Termination {
    /// Prevents the task from starting and, if `terminate` is set, terminates it if it is running.
    fn order(&self, entry: &Entry) {
        entry.orders.revoke();
        if self.terminate {
            entry.orders.terminate(Signal::number(self.signal.as_ref()));
        }
    }
}

/// Signal by name or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Signal {
    Number(i32),
    Name(String),
}

impl Signal {
    /// Returns the number of the signal on Linux, which monitors show. All signals have the same effect.
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

pub(super) async fn revoke(shared: &Shared, order: Revoke) -> MethodResult {
    let ids: BTreeSet<String> = order.task_id.into_iter().collect();
    if ids.len() > MAX_IDS {
        return Err(Failure::Other(format!(
            "a command may name at most {MAX_IDS} ids"
        )));
    }
    shared.revoked.add(ids.iter().cloned());
    let stored: Vec<&str> = ids.iter().map(String::as_str).collect();
    if let Err(error) = shared.broker.store_revoked(&stored).await {
        warn!(
            celery.tasks.count = ids.len(),
            %error,
            "failed to store revoked tasks for workers that start later"
        );
    }
    let terminate = order.termination.terminate;
    let mut elsewhere = ids.clone();
    let mut terminated = BTreeSet::new();
    for entry in shared.inflight.held() {
        if !ids.contains(entry.id.as_str()) {
            continue;
        }
        elsewhere.remove(entry.id.as_str());
        order.termination.order(&entry);
        if terminate {
            terminated.insert(entry.id.to_string());
        }
    }
    let postponed: Vec<String> = elsewhere.iter().cloned().collect();
    store_revoked(shared, elsewhere).await;
    // A postponed task may be due after the revocation has expired, so a worker has to receive and settle it now.
    if let Err(error) = shared.broker.recall(&postponed).await {
        warn!(
            celery.tasks.count = postponed.len(),
            %error,
            "failed to recall postponed tasks; they are revoked when they are due"
        );
    }
    info!(
        celery.tasks.count = ids.len(),
        celery.tasks.terminated = terminated.len(),
        "revoked tasks"
    );
    if !terminate {
        let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        ok(format!("tasks {{{}}} flagged as revoked", ids.join(", ")))
    } else if terminated.is_empty() {
        ok("terminate: tasks unknown")
    } else {
        let terminated: Vec<String> = terminated.into_iter().collect();
        ok(format!("terminate: {}", terminated.join(", ")))
    }
}

/// Stores `REVOKED` for tasks that have not started, so that waiting clients do not have to wait until a
/// worker receives the tasks.
async fn store_revoked(shared: &Shared, ids: impl IntoIterator<Item = String>) {
    let now = system::now();
    let stores = ids.into_iter().map(|id| async move {
        let id = TaskId::from(id);
        let stored = shared.broker.result(&id).await?;
        if stored.is_some_and(|meta| meta.status != Status::Retry) {
            // The task has finished, or another worker runs it and will store its result.
            return Ok(());
        }
        let headers = Headers::new(String::new(), id);
        shared
            .broker
            .store_unless_ended(&ResultMeta::revoked(&headers, "revoked", now))
            .await
    });
    let failures = stream::iter(stores)
        .buffer_unordered(CONCURRENCY)
        .filter_map(async |stored: Result<(), crate::BrokerError>| stored.err())
        .collect::<Vec<_>>()
        .await;
    if let Some(error) = failures.first() {
        warn!(
            celery.tasks.count = failures.len(),
            %error,
            "failed to store REVOKED for waiting tasks; their workers will store it when they receive them"
        );
    }
}

#[derive(Deserialize)]
pub(super) struct RevokeByStamps {
    headers: Stamps,
    #[serde(flatten)]
    termination: Termination,
}

/// Stamps as `{"name": value or [values]}`, or as `["name=value"]` from the command line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stamps {
    Map(Map<String, Value>),
    List(Vec<String>),
}

impl Stamps {
    fn pairs(self) -> Map<String, Value> {
        match self {
            Self::Map(map) => map,
            Self::List(list) => list
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect(),
        }
    }
}

/// Returns the set of values of each stamp.
fn sets(pairs: Map<String, Value>) -> revoked::Stamps {
    let texts = |value: Value| match value {
        Value::Array(values) => values.iter().map(Value::to_string).collect(),
        value => [value.to_string()].into(),
    };
    pairs
        .into_iter()
        .map(|(name, value)| (name, texts(value)))
        .collect()
}

pub(super) fn revoke_by_stamps(shared: &Shared, order: RevokeByStamps) -> MethodResult {
    let pairs = order.headers.pairs();
    let headers = repr::dict(&pairs);
    let stamps = sets(pairs);
    if !shared.revoked.add_stamps(&stamps) {
        return Err(Failure::Other("too many stamps are revoked already".to_owned()));
    }
    let mut revoked = 0;
    for entry in shared.inflight.held() {
        let message = entry.delivery.message();
        if message.is_ok_and(|message| has_stamp(&message.headers, &stamps)) {
            order.termination.order(&entry);
            revoked += 1;
        }
    }
    let terminate = order.termination.terminate;
    let terminated = if terminate { revoked } else { 0 };
    info!(celery.tasks.terminated = terminated, "revoked tasks by stamps");
    match (terminate, terminated) {
        (false, _) => ok(format!(
            "headers {headers} flagged as revoked, but not terminated"
        )),
        (true, 0) => ok(format!("headers {headers} were not terminated")),
        (true, _) => ok(format!("headers {headers} revoked")),
    }
}
