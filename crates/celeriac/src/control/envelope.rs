//! Kombu's envelope around a JSON body, used for events, remote control commands and their replies. Task
//! messages use [`Message`](crate::Message) instead, because they must be preserved unchanged.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{json, system};

/// Maximum size of a command or event, in bytes: anyone with access to the server can broadcast.
pub(crate) const MAX_BROADCAST_SIZE: usize = 4 << 20;
/// Maximum size of a reply, in bytes, which may list ten thousand tasks.
pub(crate) const MAX_REPLY_SIZE: usize = 64 << 20;

/// Delivery modes of AMQP. Redis treats both alike, but kombu writes the mode.
pub(crate) const TRANSIENT: u8 = 1;
pub(crate) const PERSISTENT: u8 = 2;

/// Encodes `headers` and `body` in an envelope.
pub(crate) fn encode<T: Serialize + ?Sized>(
    exchange: &str,
    routing_key: &str,
    delivery_mode: u8,
    headers: &Value,
    body: &T,
) -> String {
    json::to_string(&json!({
        "body": STANDARD.encode(json::to_string(body)),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": delivery_mode,
            "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": system::random_id().to_string(),
        },
    }))
}

/// Decoded envelope.
#[derive(Debug, PartialEq)]
pub(crate) struct Content {
    pub headers: Value,
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
    #[derive(Deserialize)]
    struct Envelope {
        body: String,
        #[serde(default)]
        headers: Value,
        #[serde(default)]
        properties: Value,
    }
    let envelope: Envelope = serde_json::from_slice(raw).map_err(|_| DecodeError::NotEnvelope)?;
    let body = if envelope.properties["body_encoding"] == "base64" {
        let decoded = STANDARD.decode(envelope.body);
        decoded.map_err(|_| DecodeError::NotEnvelope)?
    } else {
        envelope.body.into_bytes()
    };
    Ok(Content {
        headers: envelope.headers,
        body: serde_json::from_slice(&body).map_err(|_| DecodeError::NotJson)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_envelope_can_be_decoded() {
        let headers = json!({"hostname": "celery@vm"});
        let text = encode(
            "celeryev",
            "worker.heartbeat",
            TRANSIENT,
            &headers,
            &json!({"a": [1]}),
        );
        assert!(
            text.contains(r#""delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"}"#)
        );
        let content = decode(text.as_bytes(), 1000).unwrap();
        assert_eq!(content.body, json!({"a": [1]}));
        assert_eq!(content.headers["hostname"], "celery@vm");
    }

    #[test]
    fn an_invalid_envelope_is_rejected_with_the_reason() {
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
