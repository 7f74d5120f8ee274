//! A task message as stored in a Redis list: Celery's task protocol 2 in the envelope of kombu's virtual
//! transports (Celery 5.6, kombu 5.6). Decoding is as tolerant as Celery's worker and accepts protocol 1 too;
//! the error for a message that cannot be run is a [`Poison`]. Encoding writes the same keys in the same
//! order as Celery.

mod decode;
mod envelope;
mod headers;
mod poison;
mod properties;

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use self::{headers::seconds, properties::MAX_RETRIES};
pub use self::{
    headers::{Headers, TimeLimit},
    poison::{Poison, PoisonReason},
    properties::{DeliveryInfo, Properties},
};
use crate::{compression::Compression, json, system};

/// A task message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Task headers.
    pub headers: Headers,
    /// Transport properties.
    pub properties: Properties,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map<String, Value>,
    /// Signatures to run after the task.
    pub embed: Embed,
}

/// Signatures to run after the task: the third part of the body, kept as received.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Embed {
    /// Callbacks to run after success.
    pub callbacks: Value,
    /// Callbacks to run after failure.
    pub errbacks: Value,
    /// Rest of the chain, last task first.
    pub chain: Value,
    /// Body of the chord.
    pub chord: Value,
    /// All other members.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    body: String,
    #[serde(rename = "content-encoding")]
    content_encoding: &'static str,
    #[serde(rename = "content-type")]
    content_type: &'static str,
    headers: &'a Headers,
    properties: &'a Properties,
}

impl Message {
    /// Encodes the message as a list element: JSON with a base64 body.
    #[must_use]
    pub fn encode(&self) -> String {
        let body = json::to_string(&(&self.args, &self.kwargs, &self.embed));
        let mut properties = Cow::Borrowed(&self.properties);
        if properties.body_encoding.as_deref() != Some("base64") {
            properties.to_mut().body_encoding = Some("base64".to_owned());
        }
        let compression = self.headers.extra.get(COMPRESSION).and_then(Value::as_str);
        let body = match compression.map(Compression::find) {
            Some(Ok(method)) => STANDARD.encode(method.compress(body.as_bytes())),
            _ => STANDARD.encode(body),
        };
        json::to_string(&Envelope {
            body,
            content_encoding: "utf-8",
            content_type: "application/json",
            headers: &self.headers,
            properties: &properties,
        })
    }

    /// Returns the name of the queue the message was sent to, or its routing key if it was sent to an exchange.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.properties.delivery_info.routing_key
    }

    /// Sets the queue to which the message is sent.
    pub(crate) fn set_queue(&mut self, queue: String) {
        let info = &mut self.properties.delivery_info;
        info.exchange.clear();
        info.is_fanout = false;
        info.routing_key = queue;
    }

    /// Returns whether a broker has returned the message to its queue after an earlier delivery.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.properties.delivery_info.extra.get(REDELIVERED) == Some(&Value::Bool(true))
    }

    /// Returns whether the task's `eta` is later than `now`.
    #[must_use]
    pub fn is_early(&self, now: Timestamp) -> bool {
        self.headers.eta.is_some_and(|eta| eta > now)
    }

    /// Returns the message that retries the task at `eta`: the same id, `retries + 1`, and the task as its
    /// own parent.
    #[must_use]
    pub fn retry(&self, eta: Timestamp) -> Self {
        let mut next = self.clone();
        next.headers.retries = self.headers.retries.saturating_add(1);
        next.headers.eta = Some(eta);
        next.headers.parent_id = Some(self.headers.id.clone());
        unmark(&mut next.headers.extra);
        unmark(&mut next.properties.delivery_info.extra);
        next.properties.delivery_tag = system::tag().to_string();
        next
    }
}

/// Header of kombu that names the compression of the body.
pub(crate) const COMPRESSION: &str = "compression";

/// Name of the header and of the member of `delivery_info` that mark a redelivered message.
const REDELIVERED: &str = "redelivered";

/// Member of `delivery_info` that marks a worker's copy of a message of a fan-out exchange.
const BROADCAST: &str = "celeriac_broadcast";

/// Header that counts the workers that died while holding the message. Celery does not know it.
const ABANDONED: &str = "celeriac_deliveries";

/// Returns the list element marked as redelivered and otherwise unchanged, or `None` if it is not a JSON
/// object.
pub(crate) fn mark_redelivered(raw: &[u8]) -> Option<String> {
    rewrite(raw, mark, mark)
}

/// Marks a message whose worker has died as redelivered, and increments the number of workers that died
/// while holding it. Returns the message and the number.
pub(crate) fn mark_abandoned(raw: &[u8]) -> Option<(String, u64)> {
    let mut times = 0;
    let count = |headers: &mut Map<String, Value>| {
        mark(headers);
        let before = headers.get(ABANDONED).and_then(Value::as_u64).unwrap_or(0);
        times = before.saturating_add(1);
        headers.insert(ABANDONED.to_owned(), Value::from(times));
    };
    let message = rewrite(raw, count, mark)?;
    Some((message, times))
}

/// Returns the list element without the marks of earlier deliveries and with all of its retries, or `None` if it is
/// not a JSON object.
pub(crate) fn as_never_delivered(raw: &[u8]) -> Option<String> {
    let reset = |headers: &mut Map<String, Value>| {
        unmark(headers);
        if let Some(retries) = headers.get_mut("retries").filter(|retries| retries.is_number()) {
            *retries = Value::from(0);
        }
    };
    rewrite(raw, reset, unmark)
}

/// Returns the list element marked as the copy that one worker has of a message of a fan-out exchange, or `None` if it
/// is not a JSON object.
pub(crate) fn mark_broadcast(raw: &[u8]) -> Option<String> {
    let mark = |info: &mut Map<String, Value>| {
        info.insert(BROADCAST.to_owned(), Value::Bool(true));
    };
    rewrite(raw, |_| {}, mark)
}

/// Returns the priority of a list element; 0 if it has none.
pub(crate) fn priority(raw: &[u8]) -> u8 {
    let message: Value = serde_json::from_slice(raw).unwrap_or_default();
    message["properties"]["priority"]
        .as_u64()
        .map_or(0, |priority| priority.min(9) as u8)
}

fn mark(map: &mut Map<String, Value>) {
    map.insert(REDELIVERED.to_owned(), Value::Bool(true));
}

fn unmark(map: &mut Map<String, Value>) {
    map.shift_remove(REDELIVERED);
    map.shift_remove(ABANDONED);
}

/// Rewrites the headers and the `delivery_info` of a list element.
fn rewrite(
    raw: &[u8],
    headers: impl FnOnce(&mut Map<String, Value>),
    info: impl FnOnce(&mut Map<String, Value>),
) -> Option<String> {
    let mut envelope: Map<String, Value> = serde_json::from_slice(&json::exact(raw)).ok()?;
    if let Some(Value::Object(map)) = envelope.get_mut("headers") {
        headers(map);
    }
    if let Some(Value::Object(map)) = envelope
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("delivery_info"))
    {
        info(map);
    }
    Some(json::to_string(&envelope))
}

#[cfg(test)]
mod tests;
