//! The atomic steps of a worker: settling a task, and publishing several messages together.

use serde_json::Value;

use crate::{message::Message, result::ResultMeta, task_id::TaskId};

/// Results, follow-up tasks, chords and dead letter of a finished task.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Settlement {
    /// Result of the task to store and announce. It does not replace `SUCCESS`.
    pub results: Vec<ResultMeta>,
    /// Results of tasks that can no longer run, to store and announce. They do not replace a final result.
    pub skipped: Vec<ResultMeta>,
    /// Tasks to publish.
    pub publication: Publication,
    /// Chords whose headers the task has completed, as the id of the header and the task id of its last part.
    pub chords: Vec<(String, TaskId)>,
    /// Ids of those headers whose chord fails. Their parts stay until they expire, as with Celery.
    pub failed_chords: Vec<String>,
    /// Reason to keep the message in the dead-letter list; `None` to drop it.
    pub dead_letter: Option<String>,
}

/// Result of applying a [`Settlement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettlementStatus {
    /// The settlement was applied.
    Applied,
    /// The delivery is no longer reserved; no change was made.
    NotHeld,
    /// Another worker has claimed one of the chords; no change was made.
    ChordTaken,
}

/// Messages and groups that are published atomically.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Publication {
    /// Messages, each for its own queue.
    pub messages: Vec<Message>,
    /// Groups that are headers of chords, each with its number of results.
    pub chord_sizes: Vec<(String, u64)>,
    /// Headers of chords that get more results, each with the number of results to add.
    pub chord_additions: Vec<(String, u64)>,
    /// Groups whose structure is stored, as Celery saves a `GroupResult`.
    pub groups: Vec<(String, Value)>,
}
