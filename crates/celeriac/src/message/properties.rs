//! The `properties` of a message: where it was sent and how its body is packed. They are kombu's, not Celery's.

use serde::Serialize;
use serde_json::{Map, Value};

use super::poison::PoisonReason;

/// Transport properties, in the order in which kombu writes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Properties {
    /// The task's id once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Where replies go; one id a sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// 2 is persistent, 1 transient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// Milliseconds until the message expires, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Where it was sent.
    pub delivery_info: DeliveryInfo,
    /// 0 (first) to 9 (last).
    pub priority: u8,
    /// `base64`, or absent for a body that is plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_encoding: Option<String>,
    /// The message's own id. This crate gives UUIDs of version 7, which say when it was sent.
    pub delivery_tag: String,
    /// Every other property.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a message was sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DeliveryInfo {
    /// The exchange; the empty one delivers to the queue named by the routing key.
    pub exchange: String,
    /// The queue, with the empty exchange.
    pub routing_key: String,
    /// The rest; `redelivered` after a restore.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Properties {
    pub(super) fn read(properties: impl IntoIterator<Item = (String, Value)>) -> Result<Self, PoisonReason> {
        let mut delivery_info = None;
        let mut delivery_tag = None;
        let mut read = Self {
            correlation_id: None,
            reply_to: None,
            delivery_mode: None,
            expiration: None,
            delivery_info: DeliveryInfo::default(),
            priority: 0,
            body_encoding: None,
            delivery_tag: String::new(),
            extra: Map::new(),
        };
        for (name, value) in properties {
            match (name.as_str(), value) {
                ("correlation_id", Value::String(text)) => read.correlation_id = Some(text),
                ("reply_to", Value::String(text)) => read.reply_to = Some(text),
                ("expiration", Value::String(text)) => read.expiration = Some(text),
                ("body_encoding", Value::String(text)) => read.body_encoding = Some(text),
                ("delivery_mode", Value::Number(mode)) => {
                    read.delivery_mode = mode.as_u64().and_then(|mode| u8::try_from(mode).ok());
                }
                ("priority", Value::Number(priority)) => {
                    read.priority = priority.as_u64().map_or(0, |priority| priority.min(9) as u8);
                }
                ("delivery_tag", Value::String(text)) => delivery_tag = Some(text),
                ("delivery_info", Value::Object(map)) => delivery_info = Some(DeliveryInfo::read(map)),
                (
                    "correlation_id" | "reply_to" | "expiration" | "body_encoding" | "delivery_mode",
                    Value::Null,
                ) => {}
                ("body_encoding", _) => return Err(PoisonReason::Missing("properties.body_encoding")),
                // Written anew whatever it was: as an extra it would be there twice.
                ("priority", _) => {}
                (_, value) => {
                    read.extra.insert(name, value);
                }
            }
        }
        read.delivery_info = delivery_info.ok_or(PoisonReason::Missing("properties.delivery_info"))?;
        read.delivery_tag = delivery_tag.ok_or(PoisonReason::Missing("properties.delivery_tag"))?;
        Ok(read)
    }
}

impl DeliveryInfo {
    fn read(map: Map<String, Value>) -> Self {
        let mut read = Self::default();
        for (name, value) in map {
            match (name.as_str(), value) {
                ("exchange", Value::String(text)) => read.exchange = text,
                ("routing_key", Value::String(text)) => read.routing_key = text,
                ("exchange" | "routing_key", _) => {}
                (_, value) => {
                    read.extra.insert(name, value);
                }
            }
        }
        read
    }
}
