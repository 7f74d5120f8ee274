//! The `properties` of a message, which kombu defines: the destination, and the encoding of the body.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{envelope::Members, headers::string, poison::PoisonReason};

/// Property that overrides the maximum number of retries of the task.
pub(crate) const MAX_RETRIES: &str = "max_retries";

/// Transport properties, in the order in which kombu writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Properties {
    /// Id of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Reply address, an id of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Delivery mode: 1 for transient, 2 for persistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// Milliseconds until the message expires, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Destination of the message.
    pub delivery_info: DeliveryInfo,
    /// Priority, from 0 (first) to 9 (last).
    pub priority: u8,
    /// Encoding of the body: `base64`, or absent for plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_encoding: Option<String>,
    /// Id of the message. This crate creates UUIDs of version 7, which contain the time of sending.
    pub delivery_tag: String,
    /// All other properties.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Destination of a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeliveryInfo {
    /// Exchange; the default exchange, `""`, delivers to the queue named by the routing key.
    pub exchange: String,
    /// Routing key; the name of the queue when the exchange is the default one.
    pub routing_key: String,
    /// Whether the exchange is a fan-out exchange. Known only to the sender.
    #[serde(skip)]
    pub(crate) is_fanout: bool,
    /// All other members, including `redelivered` after a restore.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Properties {
    pub(super) fn read(properties: Members<'_>) -> Result<Self, PoisonReason> {
        let mut delivery_info = None;
        let mut delivery_tag = None;
        let mut read = Self::default();
        for (name, value) in properties {
            match (&*name, value) {
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
                // `priority` is always written, so a value of the wrong type must not be kept as an extra
                // member too.
                ("priority", _) => {}
                (_, value) => {
                    read.extra.insert(name.into_owned(), value);
                }
            }
        }
        read.delivery_info = delivery_info.ok_or(PoisonReason::Missing("properties.delivery_info"))?;
        read.delivery_tag = delivery_tag.ok_or(PoisonReason::Missing("properties.delivery_tag"))?;
        Ok(read)
    }
}

impl DeliveryInfo {
    /// Returns the destination that is a queue.
    pub(crate) fn queue(name: impl Into<String>) -> Self {
        Self {
            routing_key: name.into(),
            ..Self::default()
        }
    }

    fn read(mut map: Map<String, Value>) -> Self {
        let mut take = |name| string(map.shift_remove(name)?);
        Self {
            exchange: take("exchange").unwrap_or_default(),
            routing_key: take("routing_key").unwrap_or_default(),
            is_fanout: false,
            extra: map,
        }
    }
}
