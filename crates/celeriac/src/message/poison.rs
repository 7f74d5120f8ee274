//! Why a message cannot become a task. The reason goes to the dead-letter list and into a log line, so it never
//! quotes the message's content.

use thiserror::Error;

/// A message that no worker can run, whatever its code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Poison {
    /// What is wrong with it.
    pub reason: PoisonReason,
    /// The task's id where the message got far enough to name one: someone may wait for its result.
    pub task_id: Option<String>,
    /// The task's name, likewise.
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

/// What makes a message undeliverable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoisonReason {
    /// The list element is no JSON object.
    #[error("the message is not a JSON object: {0}")]
    NotJson(String),
    /// A part that every message has is missing, or has another type than it must have.
    #[error("{0} is missing or has the wrong type")]
    Missing(&'static str),
    /// A serialisation other than JSON, which is never decoded (pickle runs code).
    #[error("content type {0:?} is not accepted")]
    ContentType(String),
    /// A character set other than UTF-8.
    #[error("content encoding {0:?} is not accepted")]
    ContentEncoding(String),
    /// A `body_encoding` that is not base64.
    #[error("body encoding {0:?} is not known")]
    BodyEncoding(String),
    /// The body says it is base64 and is not.
    #[error("the body is not base64: {0}")]
    Base64(String),
    /// The decoded body is not JSON.
    #[error("the body is not JSON: {0}")]
    BodyNotJson(String),
    /// The decoded body is JSON but not `[args, kwargs, embed]`.
    #[error("the body is not [args, kwargs, embed]: {0}")]
    BodyShape(&'static str),
    /// Python's integers have no bound. One beyond 64 bits would become a float here, and the task would run with
    /// another number than it was sent.
    #[error("the body holds an integer beyond 64 bits")]
    IntegerTooLarge,
    /// A header that a worker must understand holds something else than it may.
    #[error("the header {name} is not {expected}")]
    Header {
        /// The header's name.
        name: &'static str,
        /// What it may hold.
        expected: &'static str,
    },
}
