//! What workers tell about themselves: `worker-online`, `worker-heartbeat` every two seconds, `worker-offline`, in
//! kombu's envelope on the exchange `celeryev`. Python workers and Flower read ours, and we read theirs.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{json, system};

/// Which news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEventKind {
    /// It has begun to take tasks.
    Online,
    /// It is alive.
    Heartbeat,
    /// It has stopped.
    Offline,
}

impl WorkerEventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Heartbeat => "heartbeat",
            Self::Offline => "offline",
        }
    }

    /// The routing key, the last part of the Redis channel's name.
    #[must_use]
    pub fn routing_key(self) -> String {
        format!("worker.{}", self.name())
    }
}

/// News of one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEvent {
    /// Which news.
    pub kind: WorkerEventKind,
    /// The worker, `celery@host`.
    pub hostname: String,
    /// Everything else it said about itself.
    pub fields: Map<String, Value>,
}

impl WorkerEvent {
    /// The kombu message that carries it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut body = Map::new();
        body.insert("hostname".to_owned(), json!(self.hostname));
        body.extend(self.fields.clone());
        body.insert("type".to_owned(), json!(format!("worker-{}", self.kind.name())));
        json::to_string(&json!({
            "body": STANDARD.encode(json::to_string(&body)),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": self.hostname},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": self.kind.routing_key()},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": system::random_id().to_string(),
            },
        }))
    }

    /// Reads a kombu message; `None` when it is no news of a worker.
    #[must_use]
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_slice(raw).ok()?;
        let body = STANDARD.decode(envelope["body"].as_str()?).ok()?;
        let mut fields: Map<String, Value> = serde_json::from_slice(&body).ok()?;
        let kind = match fields.shift_remove("type")?.as_str()? {
            "worker-online" => WorkerEventKind::Online,
            "worker-heartbeat" => WorkerEventKind::Heartbeat,
            "worker-offline" => WorkerEventKind::Offline,
            _ => return None,
        };
        let hostname = fields.shift_remove("hostname")?.as_str()?.to_owned();
        Some(Self {
            kind,
            hostname,
            fields,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_envelope() {
        let mut fields = Map::new();
        fields.insert("freq".to_owned(), json!(2.0));
        let event = WorkerEvent {
            kind: WorkerEventKind::Heartbeat,
            hostname: "celery@vm".to_owned(),
            fields,
        };
        let raw = event.encode();
        assert!(raw.contains(r#""routing_key": "worker.heartbeat""#));
        assert_eq!(WorkerEvent::decode(raw.as_bytes()), Some(event));
        assert_eq!(WorkerEvent::decode(b"{}"), None);
    }
}
