//! A task message as it lies in a Redis list: Celery's task protocol 2 inside kombu's virtual-transport envelope
//! (Celery 5.6, kombu 5.6). Decoding is as tolerant as Celery's worker, and also reads protocol 1; what cannot
//! be run is a [`Poison`] with its reason. Encoding writes what Celery writes, key by key.

mod decode;
mod envelope;
mod headers;
mod poison;
mod properties;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use self::headers::seconds;
pub use self::{
    headers::{Headers, TimeLimit},
    poison::{Poison, PoisonReason},
    properties::{DeliveryInfo, Properties},
};
use crate::{json, system};

/// One task message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What is to run.
    pub headers: Headers,
    /// Where it was sent.
    pub properties: Properties,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map<String, Value>,
    /// What follows the task.
    pub embed: Embed,
}

/// The third part of the body: signatures to run after the task. Kept as they came.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Embed {
    /// Run after success.
    pub callbacks: Value,
    /// Run after failure.
    pub errbacks: Value,
    /// The rest of the chain, last task first.
    pub chain: Value,
    /// The chord's body.
    pub chord: Value,
    /// Whatever else was there.
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
    /// Reads one list element.
    ///
    /// # Errors
    /// A [`Poison`] when no worker could run it. Never panics, whatever the bytes.
    pub fn decode(raw: &[u8]) -> Result<Self, Poison> {
        decode::decode(raw)
    }

    /// The list element: JSON with a base64 body.
    #[must_use]
    pub fn encode(&self) -> String {
        let body = json::to_string(&(&self.args, &self.kwargs, &self.embed));
        let properties;
        let properties = if self.properties.body_encoding.as_deref() == Some("base64") {
            &self.properties
        } else {
            properties = Properties {
                body_encoding: Some("base64".to_owned()),
                ..self.properties.clone()
            };
            &properties
        };
        json::to_string(&Envelope {
            body: STANDARD.encode(body),
            content_encoding: "utf-8",
            content_type: "application/json",
            headers: &self.headers,
            properties,
        })
    }

    /// The queue it was sent to.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.properties.delivery_info.routing_key
    }

    /// Whether a broker gave it back to its queue after a worker had taken it.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.properties.delivery_info.extra.get("redelivered") == Some(&Value::Bool(true))
    }

    /// Whether it is not to be run yet.
    #[must_use]
    pub fn is_early(&self, now: Timestamp) -> bool {
        self.headers.eta.is_some_and(|eta| eta > now)
    }

    /// The message that tries the same task again: same id, `retries + 1`, its own parent, due at `eta`.
    #[must_use]
    pub fn retry(&self, eta: Timestamp) -> Self {
        let mut next = self.clone();
        next.headers.retries = self.headers.retries.saturating_add(1);
        next.headers.eta = Some(eta);
        next.headers.parent_id = Some(self.headers.id.clone());
        next.headers.extra.shift_remove("redelivered");
        next.headers.extra.shift_remove(ABANDONED);
        next.properties.delivery_info.extra.shift_remove("redelivered");
        next.properties.delivery_tag = system::tag().to_string();
        next
    }
}

/// Ours: the header that counts how many workers have died with the message in their hands.
const ABANDONED: &str = "celeriac_deliveries";

/// The same list element marked as redelivered, everything else untouched; `None` when it is no JSON object.
pub(crate) fn mark_redelivered(raw: &[u8]) -> Option<String> {
    redelivered(raw, |_| {}).map(|(message, ())| message)
}

/// [`mark_redelivered`] for a message whose worker has died: also counts how often that has happened to it, and tells.
pub(crate) fn mark_abandoned(raw: &[u8]) -> Option<(String, u64)> {
    redelivered(raw, |headers| {
        let before = headers.get(ABANDONED).and_then(Value::as_u64).unwrap_or(0);
        let times = before.saturating_add(1);
        headers.insert(ABANDONED.to_owned(), Value::from(times));
        times
    })
}

fn redelivered<T: Default>(
    raw: &[u8],
    mark: impl FnOnce(&mut Map<String, Value>) -> T,
) -> Option<(String, T)> {
    let mut envelope: Map<String, Value> = serde_json::from_slice(raw).ok()?;
    let mut marked = T::default();
    if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        headers.insert("redelivered".to_owned(), Value::Bool(true));
        marked = mark(headers);
    }
    if let Some(Value::Object(info)) = envelope
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("delivery_info"))
    {
        info.insert("redelivered".to_owned(), Value::Bool(true));
    }
    Some((json::to_string(&envelope), marked))
}

/// The same list element without the marks that deliveries leave; `None` when it is no JSON object.
pub(crate) fn as_never_delivered(raw: &[u8]) -> Option<String> {
    let mut envelope: Map<String, Value> = serde_json::from_slice(raw).ok()?;
    if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        headers.shift_remove("redelivered");
        headers.shift_remove(ABANDONED);
    }
    if let Some(Value::Object(info)) = envelope
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("delivery_info"))
    {
        info.shift_remove("redelivered");
    }
    Some(json::to_string(&envelope))
}

#[cfg(test)]
mod tests;
