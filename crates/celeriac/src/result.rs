//! Task results in the format of Celery's Redis backend: a JSON text for each task under
//! `celery-task-meta-<id>`, with the same keys in the same order, published on the channel of the same name.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    compression::{Compression, compressed_result, decompressed_result},
    exception::Exception,
    json,
    message::{Headers, Message},
    task_id::TaskId,
    time,
};

/// State of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Status {
    /// A worker runs the task.
    Started,
    /// The task returned a value.
    Success,
    /// The task failed and will be retried.
    Retry,
    /// The task failed.
    Failure,
    /// The task expired or was revoked.
    Revoked,
    /// A custom state, such as `PROGRESS`.
    #[serde(untagged)]
    Other(String),
}

impl From<&str> for Status {
    /// Returns the state with this name, which is custom if Celery does not define it.
    fn from(name: &str) -> Self {
        match name {
            "STARTED" => Self::Started,
            "SUCCESS" => Self::Success,
            "RETRY" => Self::Retry,
            "FAILURE" => Self::Failure,
            "REVOKED" => Self::Revoked,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Status {
    /// Returns Celery's name for the state.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Started => "STARTED",
            Self::Success => "SUCCESS",
            Self::Retry => "RETRY",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Other(name) => name,
        }
    }

    /// Reads the state from the first bytes of a stored result, where Celery writes it.
    pub(crate) fn of_stored(start: &[u8]) -> Option<Self> {
        let name = start.strip_prefix(br#"{"status": "#)?;
        serde_json::Deserializer::from_slice(name)
            .into_iter()
            .next()?
            .ok()
    }

    /// Returns whether the state is final.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }
}

/// State of a task and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlatMeta")]
#[non_exhaustive]
pub struct ResultMeta {
    /// State of the task.
    pub status: Status,
    /// Return value, or the exception of a failure.
    pub result: Value,
    /// Traceback of a failure, as text.
    pub traceback: Option<String>,
    /// Tasks sent by the task.
    pub children: Value,
    /// Time of the final state, in ISO 8601.
    pub date_done: Option<String>,
    /// Id of the group the task belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Id of the task that sent this task; from the second attempt on, the task's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<TaskId>,
    /// Call of the task, if the worker stores extended results.
    #[serde(flatten)]
    pub call: Option<Box<TaskCall>>,
    /// Id of the task.
    pub task_id: TaskId,
    /// Compression of the stored result, if the task succeeded.
    #[serde(skip)]
    pub(crate) compression: Option<Compression>,
}

/// Call of a task, which extended results contain.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskCall {
    /// Name of the task.
    pub name: Option<String>,
    /// Positional arguments.
    pub args: Value,
    /// Keyword arguments.
    pub kwargs: Value,
    /// Name of the worker.
    pub worker: Option<String>,
    /// Number of earlier attempts.
    pub retries: Option<u32>,
    /// Queue that the message was sent to.
    pub queue: Option<String>,
    /// Names of stamped headers.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub stamped_headers: Value,
    /// Stamps by name, which are not read from results.
    #[serde(flatten)]
    pub stamps: Map<String, Value>,
}

/// A result as it is stored, read without serde's slower flattening.
#[derive(Deserialize)]
struct FlatMeta {
    status: Status,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    traceback: Option<String>,
    #[serde(default)]
    children: Value,
    #[serde(default)]
    date_done: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    parent_id: Option<TaskId>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    kwargs: Value,
    #[serde(default)]
    worker: Option<String>,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    stamped_headers: Value,
    task_id: TaskId,
}

impl From<FlatMeta> for ResultMeta {
    fn from(flat: FlatMeta) -> Self {
        let call = flat.worker.is_some().then(|| {
            Box::new(TaskCall {
                name: flat.name,
                args: flat.args,
                kwargs: flat.kwargs,
                worker: flat.worker,
                retries: flat.retries,
                queue: flat.queue,
                stamped_headers: flat.stamped_headers,
                stamps: Map::new(),
            })
        });
        Self {
            status: flat.status,
            result: flat.result,
            traceback: flat.traceback,
            children: flat.children,
            date_done: flat.date_done,
            group_id: flat.group_id,
            parent_id: flat.parent_id,
            call,
            task_id: flat.task_id,
            compression: None,
        }
    }
}

impl ResultMeta {
    fn new(headers: &Headers, status: Status, result: Value) -> Self {
        Self {
            status,
            result,
            traceback: None,
            children: json!([]),
            date_done: None,
            group_id: headers.group.clone(),
            parent_id: headers.parent_id.clone(),
            call: None,
            task_id: headers.id.clone(),
            compression: None,
        }
    }

    /// Adds the call of the task, which the message contains, as with Celery's `result_extended`.
    #[must_use]
    pub(crate) fn extended(self, message: &Message, worker: &str) -> Self {
        let headers = &message.headers;
        let stamps = headers.stamps.as_object().filter(|stamps| !stamps.is_empty());
        let call = TaskCall {
            name: Some(headers.task.clone()),
            args: message.args.clone().into(),
            kwargs: message.kwargs.clone().into(),
            worker: Some(worker.to_owned()),
            retries: Some(headers.retries),
            queue: Some(message.queue().to_owned()),
            stamped_headers: stamps
                .map(|_| headers.stamped_headers.clone())
                .unwrap_or_default(),
            stamps: stamps.cloned().unwrap_or_default(),
        };
        Self {
            call: Some(Box::new(call)),
            ..self
        }
    }

    /// Creates the result of a task that has started.
    #[must_use]
    pub fn started(headers: &Headers, pid: u32, hostname: &str) -> Self {
        let result = json!({"pid": pid, "hostname": hostname});
        Self::new(headers, Status::Started, result)
    }

    /// Creates the result of a task that returned `value`.
    #[must_use]
    pub fn success(headers: &Headers, value: Value, now: Timestamp) -> Self {
        Self {
            date_done: Some(time::format(now)),
            ..Self::new(headers, Status::Success, value)
        }
    }

    /// Creates the result of a task that failed and will be retried.
    #[must_use]
    pub fn retry(headers: &Headers, exception: &Exception) -> Self {
        let result = described(exception);
        Self {
            traceback: Some(exception.traceback()),
            // Celery counts the retry as a child of the attempt.
            children: json!([[[headers.id, null], null]]),
            ..Self::new(headers, Status::Retry, result)
        }
    }

    /// Creates the result of a task whose code failed.
    #[must_use]
    pub fn failure(headers: &Headers, exception: &Exception, now: Timestamp) -> Self {
        Self {
            traceback: Some(exception.traceback()),
            ..Self::aborted(headers, exception, now)
        }
    }

    /// Creates the result of a task that failed outside of its own code, without a traceback.
    pub(crate) fn aborted(headers: &Headers, exception: &Exception, now: Timestamp) -> Self {
        Self {
            date_done: Some(time::format(now)),
            ..Self::new(headers, Status::Failure, described(exception))
        }
    }

    /// Creates the result of a task that will not run: `expired`, `revoked` or `terminated`.
    #[must_use]
    pub fn revoked(headers: &Headers, reason: &str, now: Timestamp) -> Self {
        let exception = Exception::new("TaskRevokedError", reason.to_owned()).module("celery.exceptions");
        Self {
            date_done: Some(time::format(now)),
            ..Self::new(headers, Status::Revoked, described(&exception))
        }
    }

    /// Creates a state that a task sets while it runs.
    pub(crate) fn state(headers: &Headers, status: Status, value: Value) -> Self {
        Self::new(headers, status, value)
    }

    /// Returns the exception of a task that failed, is retried or was revoked. Without an exception, all its
    /// fields are empty.
    pub fn exception(&self) -> Exception {
        Exception::from_result(&self.result)
    }

    /// Encodes the result as the JSON text that is stored and published.
    #[must_use]
    pub fn encode(&self) -> String {
        json::to_string(self)
    }

    /// Returns the stored form of the result, compressed if that makes it shorter.
    pub(crate) fn encode_stored(&self) -> Vec<u8> {
        let text = self.encode().into_bytes();
        let method = self.compression.filter(|_| self.status == Status::Success);
        let compressed = method.map(|method| compressed_result(&text, method));
        compressed
            .filter(|compressed| compressed.len() < text.len())
            .unwrap_or(text)
    }

    /// Decodes a result written by [`encode`](Self::encode) or by a Python worker; returns `None` if it is
    /// invalid. Numbers that `Value` cannot hold are read as [`ExactNumber`](crate::ExactNumber).
    #[must_use]
    pub fn decode(raw: &[u8]) -> Option<Self> {
        Self::read(raw).ok()
    }

    /// Decodes a result, or returns the reason that it cannot be decoded.
    pub(crate) fn read(raw: &[u8]) -> Result<Self, String> {
        let text = decompressed_result(raw)?;
        serde_json::from_slice(&json::exact(&text)).map_err(|error| match serialisation(&text) {
            Some(name) => format!("the result is serialised as {name}, and only JSON is accepted"),
            None => format!("the result is not JSON: {:?} error", error.classify()),
        })
    }
}

/// Returns the probable serialisation of a result that is not JSON.
fn serialisation(raw: &[u8]) -> Option<&'static str> {
    match raw {
        [0x80, 2..=5, ..] => Some("pickle"),
        [0x80..=0x8f | 0xde | 0xdf, ..] => Some("msgpack"),
        _ if raw.starts_with(b"children:") || raw.starts_with(b"date_done:") => Some("yaml"),
        _ => None,
    }
}

fn described(exception: &Exception) -> Value {
    json!({
        "exc_type": exception.type_name,
        "exc_message": exception.arguments(),
        "exc_module": exception.module,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(parent: Option<&str>) -> Headers {
        let mut headers = Headers::new("t".to_owned(), "d5c6".into());
        headers.parent_id = parent.map(TaskId::from);
        headers
    }

    fn now() -> Timestamp {
        "2026-11-22T06:51:32.654664Z".parse().unwrap()
    }

    fn error() -> Exception {
        Exception::new("OperationalError", "down").module("sqlalchemy.exc")
    }

    #[test]
    fn every_state_has_celerys_keys_in_celerys_order() {
        assert_eq!(
            ResultMeta::started(&headers(None), 6127, "celery@vm").encode(),
            r#"{"status": "STARTED", "result": {"pid": 6127, "hostname": "celery@vm"}, "traceback": null, "children": [], "date_done": null, "task_id": "d5c6"}"#
        );
        assert_eq!(
            ResultMeta::success(
                &headers(Some("d5c6")),
                json!({"status": "success", "article_id": 6}),
                now()
            )
            .encode(),
            r#"{"status": "SUCCESS", "result": {"status": "success", "article_id": 6}, "traceback": null, "children": [], "date_done": "2026-11-22T06:51:32.654664+00:00", "parent_id": "d5c6", "task_id": "d5c6"}"#
        );
        assert_eq!(
            ResultMeta::retry(&headers(None), &error()).encode(),
            r#"{"status": "RETRY", "result": {"exc_type": "OperationalError", "exc_message": ["down"], "exc_module": "sqlalchemy.exc"}, "traceback": "Traceback (most recent call last):\nsqlalchemy.exc.OperationalError: down\n", "children": [[["d5c6", null], null]], "date_done": null, "task_id": "d5c6"}"#
        );
        assert_eq!(
            ResultMeta::failure(&headers(Some("d5c6")), &error(), now()).encode(),
            r#"{"status": "FAILURE", "result": {"exc_type": "OperationalError", "exc_message": ["down"], "exc_module": "sqlalchemy.exc"}, "traceback": "Traceback (most recent call last):\nsqlalchemy.exc.OperationalError: down\n", "children": [], "date_done": "2026-11-22T06:51:32.654664+00:00", "parent_id": "d5c6", "task_id": "d5c6"}"#
        );
        assert_eq!(
            ResultMeta::revoked(&headers(None), "expired", now()).encode(),
            r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"}, "traceback": null, "children": [], "date_done": "2026-11-22T06:51:32.654664+00:00", "task_id": "d5c6"}"#
        );
    }

    #[test]
    fn only_a_success_that_gets_shorter_is_compressed() {
        let stored = |mut meta: ResultMeta| {
            meta.compression = Some(Compression::Zlib);
            (meta.encode_stored(), meta.encode().into_bytes())
        };
        let (short, text) = stored(ResultMeta::success(&headers(None), json!(1), now()));
        assert_eq!(short, text, "compression would make it longer");
        let (long, text) = stored(ResultMeta::success(
            &headers(None),
            json!("x".repeat(10_000)),
            now(),
        ));
        assert!(long.len() < 500, "{}", long.len());
        assert_eq!(decompressed_result(&long).unwrap(), text);
        let failure = Exception::new("ValueError", "x".repeat(10_000));
        let (failed, text) = stored(ResultMeta::failure(&headers(None), &failure, now()));
        assert_eq!(failed, text);
    }

    #[test]
    fn a_custom_state_of_python_is_kept() {
        let meta =
            ResultMeta::decode(br#"{"status": "PROGRESS", "result": {"done": 3}, "task_id": "1"}"#).unwrap();
        assert_eq!(meta.status, Status::Other("PROGRESS".to_owned()));
        assert!(!meta.status.is_final());
        assert_eq!(ResultMeta::decode(b"nonsense"), None);
        let meta =
            ResultMeta::decode(br#"{"status": "SUCCESS", "result": [NaN, 1], "task_id": "1"}"#).unwrap();
        assert!(meta.encode().contains(r#""result": [NaN, 1]"#), "{meta:?}");
    }
}
