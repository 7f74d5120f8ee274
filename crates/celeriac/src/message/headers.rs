//! The `headers` of a protocol-2 message: what is to run, when, and where it comes from. Keys this crate does not
//! know (trace context among them) are kept in order and written back.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::poison::PoisonReason;
use crate::time;

/// Task headers, in the order in which Celery writes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headers {
    /// The sender's language; `py` everywhere, because Celery workers look for it.
    pub lang: String,
    /// The task's registered name.
    pub task: String,
    /// The task's id; the result is kept under it.
    pub id: String,
    /// A name to show instead of the task's.
    pub shadow: Option<String>,
    /// Not to be run before this time.
    #[serde(serialize_with = "optional_time")]
    pub eta: Option<Timestamp>,
    /// Not to be run after this time.
    #[serde(serialize_with = "optional_time")]
    pub expires: Option<Timestamp>,
    /// The group the task belongs to.
    pub group: Option<String>,
    /// Its place in that group.
    pub group_index: Value,
    /// How often it was tried before.
    pub retries: u32,
    /// How long it may run.
    pub timelimit: TimeLimit,
    /// The first task of the tree it belongs to.
    pub root_id: Option<String>,
    /// The task that sent it; the task itself from its second attempt on.
    pub parent_id: Option<String>,
    /// The positional arguments for people.
    pub argsrepr: Option<String>,
    /// The keyword arguments for people.
    pub kwargsrepr: Option<String>,
    /// The sending process, `gen<pid>@<host>`.
    pub origin: Option<String>,
    /// Nobody will ask for the result.
    pub ignore_result: bool,
    /// How often the task replaced itself.
    pub replaced_task_nesting: Value,
    /// Names of stamped headers.
    pub stamped_headers: Value,
    /// The stamps.
    pub stamps: Value,
    /// Every other header, `traceparent` among them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `timelimit`: `[hard, soft]` in seconds on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeLimit {
    /// The task is ended after this long.
    pub hard: Option<Duration>,
    /// The task is told to end after this long.
    pub soft: Option<Duration>,
}

impl Serialize for TimeLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.hard.map(seconds), self.soft.map(seconds)].serialize(serializer)
    }
}

/// Whole seconds stay integers, as in Python.
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
    /// Headers of a task that nothing else is known about.
    pub(crate) fn new(task: String, id: String) -> Self {
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

    /// Reads every header except `task` and `id`, which must be known already. Absent and `null` are the same.
    pub(crate) fn read(
        task: String,
        id: String,
        headers: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, PoisonReason> {
        let mut read = Self::new(task, id);
        for (name, value) in headers {
            if value.is_null() && KNOWN.contains(&name.as_str()) {
                continue;
            }
            match name.as_str() {
                "task" | "id" => {}
                "lang" => read.lang = string(value).unwrap_or(read.lang),
                "shadow" => read.shadow = string(value),
                "eta" => read.eta = Some(instant("eta", &value)?),
                "expires" => read.expires = Some(instant("expires", &value)?),
                "group" => read.group = string(value),
                "group_index" => read.group_index = value,
                "retries" => read.retries = count(&value)?,
                "timelimit" => read.timelimit = limits(&value)?,
                "root_id" => read.root_id = string(value),
                "parent_id" => read.parent_id = string(value),
                "argsrepr" => read.argsrepr = string(value),
                "kwargsrepr" => read.kwargsrepr = string(value),
                "origin" => read.origin = string(value),
                "ignore_result" => read.ignore_result = value.as_bool().unwrap_or(false),
                "replaced_task_nesting" => read.replaced_task_nesting = value,
                "stamped_headers" => read.stamped_headers = value,
                "stamps" => read.stamps = value,
                _ => {
                    read.extra.insert(name, value);
                }
            }
        }
        Ok(read)
    }
}

const KNOWN: [&str; 19] = [
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
];

fn string(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn instant(name: &'static str, value: &Value) -> Result<Timestamp, PoisonReason> {
    value.as_str().and_then(time::parse).ok_or(PoisonReason::Header {
        name,
        expected: "an ISO 8601 time",
    })
}

fn count(value: &Value) -> Result<u32, PoisonReason> {
    value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .ok_or(PoisonReason::Header {
            name: "retries",
            expected: "a count",
        })
}

fn limits(value: &Value) -> Result<TimeLimit, PoisonReason> {
    const WRONG: PoisonReason = PoisonReason::Header {
        name: "timelimit",
        expected: "a pair of seconds (hard, soft) or nulls",
    };
    let limit = |value: &Value| match value {
        Value::Null => Ok(None),
        other => {
            let seconds = other.as_f64().ok_or(WRONG)?;
            Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| WRONG)
        }
    };
    match value.as_array().map(Vec::as_slice) {
        Some([hard, soft]) => Ok(TimeLimit {
            hard: limit(hard)?,
            soft: limit(soft)?,
        }),
        _ => Err(WRONG),
    }
}
