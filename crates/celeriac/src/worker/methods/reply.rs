//! Replies to remote control commands, and the argument types that several methods share.

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Reason a method failed. Displayed as in Celery's replies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in crate::worker) enum Failure {
    #[error("KeyError('{0}')")]
    NoSuchMethod(String),
    #[error("TypeError({0:?})")]
    Arguments(String),
    #[error("ValueError('{0}')")]
    Value(String),
    #[error("unknown task")]
    UnknownTask,
    #[error("{0}")]
    Other(String),
}

pub(super) type MethodResult = Result<Value, Failure>;

/// Deserialises a string or a list of strings.
pub(super) fn one_or_many<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    OneOrMany::deserialize(deserializer).map(|ids| match ids {
        OneOrMany::One(id) => vec![id],
        OneOrMany::Many(ids) => ids,
    })
}

/// Deserialises a boolean by Python's rules: Flower sends 1 for true.
pub(super) fn truthy<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Null => false,
        Value::Bool(value) => value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    })
}

/// Returns a reply that reports success.
pub(super) fn ok(text: impl Into<String>) -> MethodResult {
    Ok(json!({"ok": text.into()}))
}
