//! The `headers` of a protocol-2 message: the task to run, when to run it, and which task sent it. Unknown
//! keys, trace context among them, are kept in order and written back.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::poison::PoisonReason;
use crate::{task_id::TaskId, time};

/// Task headers, in the order in which Celery writes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Headers {
    /// Language of the sender; always `py`, which Celery workers expect.
    pub lang: String,
    /// Registered name of the task.
    pub task: String,
    /// Id of the task, which is also the key of its result.
    pub id: TaskId,
    /// Display name that replaces the task's name.
    pub shadow: Option<String>,
    /// Earliest time to run the task.
    #[serde(serialize_with = "optional_time")]
    pub eta: Option<Timestamp>,
    /// Time after which the task is no longer run.
    #[serde(serialize_with = "optional_time")]
    pub expires: Option<Timestamp>,
    /// Id of the group the task belongs to.
    pub group: Option<String>,
    /// Index of the task in its group.
    pub group_index: Value,
    /// Number of earlier attempts.
    pub retries: u32,
    /// Time limits of one attempt.
    pub timelimit: TimeLimit,
    /// Id of the task at the root of the task tree.
    pub root_id: Option<TaskId>,
    /// Id of the task that sent this one; from the second attempt on, the task's own id.
    pub parent_id: Option<TaskId>,
    /// Human-readable form of the positional arguments.
    pub argsrepr: Option<String>,
    /// Human-readable form of the keyword arguments.
    pub kwargsrepr: Option<String>,
    /// Sending process, `gen<pid>@<host>`.
    pub origin: Option<String>,
    /// Whether the result is discarded.
    pub ignore_result: bool,
    /// Number of times the task has replaced itself.
    pub replaced_task_nesting: Value,
    /// Names of stamped headers.
    pub stamped_headers: Value,
    /// Stamps by name.
    pub stamps: Value,
    /// All other headers, `traceparent` among them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Time limits of a task; `[hard, soft]` in seconds on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeLimit {
    /// Time after which the task is aborted.
    pub hard: Option<Duration>,
    /// Time after which the task is asked to stop.
    pub soft: Option<Duration>,
}

impl Serialize for TimeLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.hard.map(seconds), self.soft.map(seconds)].serialize(serializer)
    }
}

/// Returns a duration in seconds, as an integer if possible, as Python writes it.
pub(crate) fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        Value::from(duration.as_secs())
    } else {
        Value::from(duration.as_secs_f64())
    }
}

fn optional_time<S: Serializer>(value: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(time::format).serialize(serializer)
}

impl Headers {
    /// Creates headers for a task, with defaults for everything else.
    pub(crate) fn new(task: String, id: TaskId) -> Self {
        Self {
            lang: "py".to_owned(),
            task,
            id,
            shadow: None,
            eta: None,
            expires: None,
            group: None,
            group_index: Value::Null,
            retries: 0,
            timelimit: TimeLimit::default(),
            root_id: None,
            parent_id: None,
            argsrepr: None,
            kwargsrepr: None,
            origin: None,
            ignore_result: false,
            replaced_task_nesting: Value::from(0),
            stamped_headers: Value::Null,
            stamps: Value::Object(Map::new()),
            extra: Map::new(),
        }
    }

    /// Reads every header except `task` and `id`. A null header counts as absent.
    pub(crate) fn read<'a>(
        task: String,
        id: TaskId,
        headers: impl IntoIterator<Item = (Cow<'a, str>, Value)>,
    ) -> Result<Self, PoisonReason> {
        let mut read = Self::new(task, id);
        for (name, value) in headers {
            match &*name {
                "task" | "id" => {}
                "eta" | "expires" | "group_index" | "retries" | "timelimit" if value.is_null() => {}
                "ignore_result" | "replaced_task_nesting" | "stamped_headers" | "stamps"
                    if value.is_null() => {}
                "lang" => read.lang = string(value).unwrap_or(read.lang),
                "shadow" => read.shadow = string(value).or(read.shadow),
                "eta" => read.eta = Some(valid(instant(&value), "eta", TIME)?),
                "expires" => read.expires = Some(valid(instant(&value), "expires", TIME)?),
                "group" => read.group = string(value).or(read.group),
                "group_index" => read.group_index = value,
                "retries" => read.retries = valid(count(&value), "retries", COUNT)?,
                "timelimit" => read.timelimit = valid(limits(&value), "timelimit", LIMITS)?,
                "root_id" => read.root_id = string(value).map(TaskId::from).or(read.root_id),
                "parent_id" => read.parent_id = string(value).map(TaskId::from).or(read.parent_id),
                "argsrepr" => read.argsrepr = string(value).or(read.argsrepr),
                "kwargsrepr" => read.kwargsrepr = string(value).or(read.kwargsrepr),
                "origin" => read.origin = string(value).or(read.origin),
                "ignore_result" => read.ignore_result = value.as_bool().unwrap_or(false),
                "replaced_task_nesting" => read.replaced_task_nesting = value,
                "stamped_headers" => read.stamped_headers = value,
                "stamps" => read.stamps = value,
                _ => {
                    read.extra.insert(name.into_owned(), value);
                }
            }
        }
        Ok(read)
    }
}

pub(super) fn string(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

const TIME: &str = "an ISO 8601 time";
const COUNT: &str = "a non-negative integer";
const LIMITS: &str = "a pair of seconds (hard, soft) or nulls";

fn valid<T>(value: Option<T>, name: &'static str, expected: &'static str) -> Result<T, PoisonReason> {
    value.ok_or(PoisonReason::Header { name, expected })
}

fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(time::parse)
}

fn count(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn limits(value: &Value) -> Option<TimeLimit> {
    let (hard, soft): (Option<f64>, Option<f64>) = Deserialize::deserialize(value).ok()?;
    let limit = |seconds: Option<f64>| seconds.map(Duration::try_from_secs_f64).transpose().ok();
    Some(TimeLimit {
        hard: limit(hard)?,
        soft: limit(soft)?,
    })
}
