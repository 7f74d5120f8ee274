//! Kombu's envelope around a JSON body, used for events, remote control commands and their replies. Task
//! messages have their own ([`Message`](crate::Message)), because they must be preserved unchanged.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{json, system};

/// Maximum size of a command or event, in bytes. Anyone with access to the server can broadcast.
pub(crate) const MAX_BROADCAST_SIZE: usize = 4 << 20;
/// Maximum size of a reply, in bytes. It may list ten thousand tasks.
pub(crate) const MAX_REPLY_SIZE: usize = 64 << 20;

/// Destination and delivery mode of an envelope.
#[derive(Debug)]
pub(crate) struct Address<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// 1 for transient, 2 for persistent. Redis treats both alike, but kombu writes the mode.
    pub delivery_mode: u8,
}

/// Encodes `headers` and `body` in an envelope.
pub(crate) fn encode<T: Serialize + ?Sized>(address: &Address<'_>, headers: &Value, body: &T) -> String {
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

/// Decoded envelope.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub headers: Map<String, Value>,
    pub body: Value,
}

/// Reason an envelope cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    #[error("it exceeds {0} bytes")]
    TooLong(usize),
    #[error("it is not a JSON object with a body")]
    NotEnvelope,
    #[error("its body is not JSON")]
    NotJson,
}

/// Decodes an envelope of up to `max_size` bytes.
pub(crate) fn decode(raw: &[u8], max_size: usize) -> Result<Content, DecodeError> {
    if raw.len() > max_size {
        return Err(DecodeError::TooLong(max_size));
    }
    let mut envelope: Map<String, Value> =
        serde_json::from_slice(raw).map_err(|_| DecodeError::NotEnvelope)?;
    let encoding = envelope
        .get("properties")
        .and_then(|properties| properties.get("body_encoding"));
    let encoded = encoding.is_some_and(|encoding| encoding == "base64");
    let body = match envelope.get("body") {
        Some(Value::String(text)) if encoded => {
            STANDARD.decode(text).map_err(|_| DecodeError::NotEnvelope)?
        }
        Some(Value::String(text)) => text.clone().into_bytes(),
        _ => return Err(DecodeError::NotEnvelope),
    };
    let headers = match envelope.shift_remove("headers") {
        Some(Value::Object(headers)) => headers,
        _ => Map::new(),
    };
    let body = serde_json::from_slice(&body).map_err(|_| DecodeError::NotJson)?;
    Ok(Content { headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_envelope_can_be_decoded() {
        let address = Address {
            exchange: "celeryev",
            routing_key: "worker.heartbeat",
            delivery_mode: 1,
        };
        let text = encode(&address, &json!({"hostname": "celery@vm"}), &json!({"a": [1]}));
        assert!(
            text.contains(r#""delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"}"#)
        );
        let content = decode(text.as_bytes(), 1000).unwrap();
        assert_eq!(content.body, json!({"a": [1]}));
        assert_eq!(content.headers["hostname"], "celery@vm");
    }

    #[test]
    fn an_invalid_envelope_is_refused_with_its_reason() {
        let envelope_of =
            |body: &str| json!({"body": body, "properties": {"body_encoding": "base64"}}).to_string();
        let cases = [
            (String::new(), DecodeError::NotEnvelope),
            ("[1]".to_owned(), DecodeError::NotEnvelope),
            ("{}".to_owned(), DecodeError::NotEnvelope),
            (
                json!({"properties": 3, "body": {}}).to_string(),
                DecodeError::NotEnvelope,
            ),
            (envelope_of("not base64!"), DecodeError::NotEnvelope),
            (envelope_of(&STANDARD.encode("not json")), DecodeError::NotJson),
            (json!({"body": "not json"}).to_string(), DecodeError::NotJson),
            (" ".repeat(1001), DecodeError::TooLong(1000)),
        ];
        for (raw, expected) in cases {
            assert_eq!(decode(raw.as_bytes(), 1000), Err(expected));
        }
        let plain = json!({"body": "{\"method\": \"ping\"}"}).to_string();
        assert_eq!(
            decode(plain.as_bytes(), 1000).unwrap().body,
            json!({"method": "ping"})
        );
    }
}
