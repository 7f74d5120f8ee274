//! Events of workers and their tasks, in kombu's envelope on the exchange `celeryev`. Worker events
//! (`worker-online`, `worker-heartbeat`, `worker-offline`) are sent one by one, task events in batches.
//! Python monitors and Flower read these events, and this module also decodes events of Python workers.

use serde_json::{Map, Value, json};

use crate::{
    control::envelope::{self, TRANSIENT},
    message::Message,
    repr, system, time,
};

/// Exchange of events.
pub(crate) const EXCHANGE: &str = "celeryev";

/// An event of a worker or of one of its tasks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Type of the event, such as `worker-heartbeat` or `task-received`.
    pub kind: String,
    /// Name of the worker, `celery@host`.
    pub hostname: String,
    /// All other fields.
    pub fields: Map<String, Value>,
}

impl Event {
    /// Creates an event with the current time and the logical time `clock`.
    pub(crate) fn new(
        kind: &str,
        hostname: &str,
        clock: u64,
        details: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let sender = [
            ("utcoffset", json!(0)),
            ("pid", json!(system::process_id())),
            ("clock", json!(clock)),
        ];
        let timestamp = [("timestamp", json!(system::unix_time()))];
        let fields = sender.into_iter().chain(details).chain(timestamp);
        Self {
            kind: kind.to_owned(),
            hostname: hostname.to_owned(),
            fields: fields.map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Returns the routing key, such as `worker.heartbeat`, which is the last part of the Redis channel's name.
    #[must_use]
    pub fn routing_key(&self) -> String {
        self.kind.replacen('-', ".", 1)
    }

    /// Encodes the event as a kombu message.
    #[must_use]
    pub fn encode(&self) -> String {
        encode_body(&self.hostname, &self.routing_key(), &self.body())
    }

    /// Encodes events of one worker as a single kombu message, to be sent with the routing key `task.multi`.
    #[must_use]
    pub fn encode_batch(hostname: &str, events: &[Self]) -> String {
        let bodies: Vec<Value> = events.iter().map(Self::body).collect();
        encode_body(hostname, TASK_BATCH, &Value::Array(bodies))
    }

    /// Decodes the events of a kombu message, skipping elements that are not events.
    #[must_use]
    pub fn decode(raw: &[u8]) -> Vec<Self> {
        match envelope::decode(raw, envelope::MAX_BROADCAST_SIZE).map(|content| content.body) {
            Ok(Value::Array(bodies)) => bodies.into_iter().filter_map(Self::read).collect(),
            Ok(body) => Self::read(body).into_iter().collect(),
            Err(_) => Vec::new(),
        }
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = Map::with_capacity(self.fields.len() + 2);
        body.insert("hostname".to_owned(), json!(self.hostname));
        body.extend(self.fields.clone());
        body.insert("type".to_owned(), json!(self.kind));
        Value::Object(body)
    }

    pub(crate) fn read(body: Value) -> Option<Self> {
        let Value::Object(mut fields) = body else {
            return None;
        };
        let kind = fields.shift_remove("type")?.as_str()?.to_owned();
        let hostname = fields.shift_remove("hostname")?.as_str()?.to_owned();
        Some(Self {
            kind,
            hostname,
            fields,
        })
    }
}

/// Returns the fields of a task that monitors show, with its arguments shortened.
pub(crate) fn task_fields(message: &Message) -> [(&'static str, Value); 8] {
    let headers = &message.headers;
    let args = headers
        .argsrepr
        .clone()
        .unwrap_or_else(|| repr::tuple(&message.args));
    let kwargs = headers
        .kwargsrepr
        .clone()
        .unwrap_or_else(|| repr::dict(&message.kwargs));
    [
        ("name", json!(headers.task)),
        ("args", json!(args)),
        ("kwargs", json!(kwargs)),
        ("root_id", json!(headers.root_id)),
        ("parent_id", json!(headers.parent_id)),
        ("retries", json!(headers.retries)),
        ("eta", json!(headers.eta.map(time::format))),
        ("expires", json!(headers.expires.map(time::format))),
    ]
}

/// Routing key of batches of task events.
pub(crate) const TASK_BATCH: &str = "task.multi";

fn encode_body(hostname: &str, routing_key: &str, body: &Value) -> String {
    let headers = json!({"hostname": hostname});
    envelope::encode(EXCHANGE, routing_key, TRANSIENT, &headers, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> Event {
        let mut fields = Map::new();
        fields.insert("freq".to_owned(), json!(2.0));
        Event {
            kind: kind.to_owned(),
            hostname: "celery@vm".to_owned(),
            fields,
        }
    }

    #[test]
    fn an_encoded_event_can_be_decoded() {
        let event = event("worker-heartbeat");
        let raw = event.encode();
        assert!(raw.contains(r#""routing_key": "worker.heartbeat""#));
        assert_eq!(Event::decode(raw.as_bytes()), [event]);
        assert_eq!(Event::decode(b"{}"), []);
    }

    #[test]
    fn a_batch_keeps_its_order_and_skips_invalid_events() {
        let batch = [event("task-received"), event("task-started")];
        let raw = Event::encode_batch("celery@vm", &batch);
        assert!(raw.contains(r#""routing_key": "task.multi""#));
        assert_eq!(Event::decode(raw.as_bytes()), batch);
        let mixed = encode_body("celery@vm", TASK_BATCH, &json!([3, {}, batch[0].body()]));
        assert_eq!(Event::decode(mixed.as_bytes()), batch[..1]);
    }
}
