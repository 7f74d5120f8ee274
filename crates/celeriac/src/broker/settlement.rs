//! What a worker asks of its broker when a task has ended, and what is published in one step.

use serde_json::Value;

use crate::{message::Message, result::ResultMeta, task_id::TaskId};

/// What follows from the end of a task.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Settlement {
    /// Results to store and announce: its own, and those of tasks that will never run because of it.
    pub results: Vec<ResultMeta>,
    /// The tasks that come next.
    pub publication: Publication,
    /// Chords whose headers this task has completed: the header's id and that of the part recorded last.
    pub chords: Vec<(String, TaskId)>,
}

/// What became of a [`Settlement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettlementStatus {
    /// It is done.
    Applied,
    /// Nothing was done: the delivery is not held any more.
    NotHeld,
    /// Nothing was done: somebody else has taken over one of the chords.
    ChordTaken,
}

/// What is published in one step: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Publication {
    /// The messages, each for its own queue.
    pub messages: Vec<Message>,
    /// Groups that are headers of chords, with the number of results each waits for.
    pub chord_sizes: Vec<(String, u64)>,
    /// Groups whose structure is kept, as Celery's `GroupResult` is saved.
    pub groups: Vec<(String, Value)>,
}
