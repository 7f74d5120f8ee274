//! Reasons that a message cannot be run. They appear in dead letters and logs, so they never quote the
//! message's content.

use thiserror::Error;

use crate::task_id::TaskId;

/// A message that no worker can run, regardless of its registered tasks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Poison {
    /// Reason that the message cannot be run.
    pub reason: PoisonReason,
    /// Id of the task, if it could be read: a client may be waiting for its result.
    pub task_id: Option<TaskId>,
    /// Name of the task, if it could be read.
    pub task: Option<String>,
}

impl From<PoisonReason> for Poison {
    fn from(reason: PoisonReason) -> Self {
        Self {
            reason,
            task_id: None,
            task: None,
        }
    }
}

/// Reason that a message cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PoisonReason {
    /// The list element is not a JSON object.
    #[error("the message is not a JSON object: {0}")]
    NotJson(String),
    /// A required part is missing or has the wrong type.
    #[error("{0} is missing or has the wrong type")]
    Missing(&'static str),
    /// The content type is not JSON. Other serialisations are never decoded; pickle, for example, runs code.
    #[error("content type {0:?} is not accepted; send the task with the serializer json")]
    ContentType(String),
    /// The character set is not UTF-8.
    #[error("content encoding {0:?} is not accepted")]
    ContentEncoding(String),
    /// The `body_encoding` is not base64.
    #[error("body encoding {0:?} is not known")]
    BodyEncoding(String),
    /// The body is declared as base64 but is not valid base64.
    #[error("the body is not base64: {0}")]
    Base64(String),
    /// The compression of the body is unknown, or its feature is off.
    #[error("{0}")]
    Compression(String),
    /// The body is not compressed as its header says.
    #[error("the body cannot be decompressed: {0}")]
    Decompression(String),
    /// The decoded body is not JSON.
    #[error("the body is not JSON: {0}")]
    BodyNotJson(String),
    /// The decoded body is JSON but does not have the form `[args, kwargs, embed]`.
    #[error("the body is not [args, kwargs, embed]: {0}")]
    BodyShape(&'static str),
    /// A header has an invalid value.
    #[error("the header {name} is not {expected}")]
    Header {
        /// Name of the header.
        name: &'static str,
        /// Description of a valid value.
        expected: &'static str,
    },
}
