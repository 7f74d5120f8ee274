//! Kombu's envelope around a JSON body, as events, remote control commands and their replies travel in it. Task
//! messages have one of their own ([`Message`](crate::Message)), because theirs must survive unchanged.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{json, system};

/// The longest command or event that is read, in bytes: anyone who reaches the server can broadcast.
pub(crate) const LONGEST_BROADCAST: usize = 4 << 20;
/// The longest reply, in bytes: a worker may hold ten thousand tasks and tell about each.
pub(crate) const LONGEST_REPLY: usize = 64 << 20;

/// What is written on an envelope.
#[derive(Debug)]
pub(crate) struct Address<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// 1 transient, 2 persistent. Both are the same on Redis, but kombu writes it.
    pub delivery_mode: u8,
}

/// The text that is sent.
pub(crate) fn seal<T: Serialize + ?Sized>(address: &Address<'_>, headers: &Value, body: &T) -> String {
    json::to_string(&json!({
        "body": STANDARD.encode(json::to_string(body)),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": address.delivery_mode,
            "delivery_info": {"exchange": address.exchange, "routing_key": address.routing_key},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": system::random_id().to_string(),
        },
    }))
}

/// What was inside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub headers: Map<String, Value>,
    pub body: Value,
}

/// Why an envelope cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unreadable {
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error("it is no JSON object with a body")]
    NoEnvelope,
    #[error("its body is not JSON")]
    NoJson,
}

/// Reads what [`seal`] or a Python process wrote, up to `longest` bytes.
pub(crate) fn open(raw: &[u8], longest: usize) -> Result<Content, Unreadable> {
    if raw.len() > longest {
        return Err(Unreadable::TooLong(longest));
    }
    let mut envelope: Map<String, Value> = serde_json::from_slice(raw).map_err(|_| Unreadable::NoEnvelope)?;
    let encoding = envelope
        .get("properties")
        .and_then(|properties| properties.get("body_encoding"));
    let encoded = encoding.is_some_and(|encoding| encoding == "base64");
    let body = match envelope.get("body") {
        Some(Value::String(text)) if encoded => STANDARD.decode(text).map_err(|_| Unreadable::NoEnvelope)?,
        Some(Value::String(text)) => text.clone().into_bytes(),
        _ => return Err(Unreadable::NoEnvelope),
    };
    let headers = match envelope.shift_remove("headers") {
        Some(Value::Object(headers)) => headers,
        _ => Map::new(),
    };
    let body = serde_json::from_slice(&body).map_err(|_| Unreadable::NoJson)?;
    Ok(Content { headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_can_be_opened() {
        let address = Address {
            exchange: "celeryev",
            routing_key: "worker.heartbeat",
            delivery_mode: 1,
        };
        let text = seal(&address, &json!({"hostname": "celery@vm"}), &json!({"a": [1]}));
        assert!(
            text.contains(r#""delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"}"#)
        );
        let content = open(text.as_bytes(), 1000).unwrap();
        assert_eq!(content.body, json!({"a": [1]}));
        assert_eq!(content.headers["hostname"], "celery@vm");
    }

    #[test]
    fn garbage_is_refused_with_its_reason() {
        let sealed =
            |body: &str| json!({"body": body, "properties": {"body_encoding": "base64"}}).to_string();
        let cases = [
            (String::new(), Unreadable::NoEnvelope),
            ("[1]".to_owned(), Unreadable::NoEnvelope),
            ("{}".to_owned(), Unreadable::NoEnvelope),
            (
                json!({"properties": 3, "body": {}}).to_string(),
                Unreadable::NoEnvelope,
            ),
            (sealed("not base64!"), Unreadable::NoEnvelope),
            (sealed(&STANDARD.encode("not json")), Unreadable::NoJson),
            (json!({"body": "not json"}).to_string(), Unreadable::NoJson),
            (" ".repeat(1001), Unreadable::TooLong(1000)),
        ];
        for (raw, expected) in cases {
            assert_eq!(open(raw.as_bytes(), 1000), Err(expected));
        }
        let plain = json!({"body": "{\"method\": \"ping\"}"}).to_string();
        assert_eq!(
            open(plain.as_bytes(), 1000).unwrap().body,
            json!({"method": "ping"})
        );
    }
}
