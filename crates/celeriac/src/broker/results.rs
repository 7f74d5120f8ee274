//! The result backend, which stores and announces the states of tasks. It is the same handle as the broker,
//! because settling a task and storing its result are one step.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{delivery::Delivery, error::BrokerError, sealed::Sealed};
use crate::{
    json,
    result::{ResultMeta, Status},
    task_id::TaskId,
};

/// Stores the results of tasks and notifies their waiters.
///
/// This trait is sealed: only the brokers of this crate implement it, so methods can be added without
/// breaking users.
#[async_trait]
pub trait ResultBackend: Sealed + fmt::Debug + Send + Sync + 'static {
    /// Stores and announces a result. `SUCCESS` is never replaced, and a state that is not final never
    /// replaces a final one.
    ///
    /// # Errors
    /// Returns an error if the backend does not confirm. Repeating the call is harmless.
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError>;

    /// Stores and announces a result, unless a final one is already stored.
    ///
    /// # Errors
    /// Returns an error if the backend does not confirm. Repeating the call is harmless.
    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError>;

    /// Returns the result of a task, or `None` if it has none yet.
    ///
    /// # Errors
    /// Returns an error if the backend cannot be reached.
    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError>;

    /// Returns the states of several tasks, in order, without their results; `None` if a task has none yet.
    ///
    /// # Errors
    /// Returns an error if the backend cannot be reached.
    async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError>;

    /// Returns the stored structure of a group, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the backend cannot be reached.
    async fn group(&self, id: &str) -> Result<Option<Value>, BrokerError>;

    /// Deletes the results of several tasks, and the stored structures of groups with these ids.
    ///
    /// # Errors
    /// Returns an error if the backend does not confirm. Repeating the call is harmless.
    async fn forget(&self, ids: &[TaskId]) -> Result<(), BrokerError>;

    /// Waits for the final result of a task, without a time-out. The wait continues through outages of the
    /// backend and notices results stored during them.
    ///
    /// # Errors
    /// Returns an error if the maximum number of results is already being awaited.
    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError>;

    /// Records the result of a part of a chord's header while the delivery is held. Repeated calls count
    /// once. The worker that records the last part runs the body, by [`Broker::settle`].
    ///
    /// # Errors
    /// Returns an error if the backend does not confirm. Repeating the call is harmless.
    ///
    /// [`Broker::settle`]: crate::Broker::settle
    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError>;
}

/// Result of one task of a chord's header.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChordPart {
    /// Id of the header.
    pub group: String,
    /// Index of the task in the header; tasks without an index come last.
    pub index: Option<u64>,
    /// Id of the task.
    pub task_id: TaskId,
    /// Final status of the task.
    pub status: Status,
    /// Return value, or the exception in the format of results.
    pub result: Value,
}

impl ChordPart {
    /// Creates the part of a task that has ended.
    #[must_use]
    pub fn new(
        group: impl Into<String>,
        index: Option<u64>,
        task_id: impl Into<TaskId>,
        status: Status,
        result: Value,
    ) -> Self {
        Self {
            group: group.into(),
            index,
            task_id: task_id.into(),
            status,
            result,
        }
    }

    /// Encodes the part as Celery stores it until the header is complete.
    pub(crate) fn encode(&self) -> String {
        json::to_string(&json!([1, self.task_id, self.status, self.result]))
    }

    /// Returns the common prefix of all encoded results of this task.
    pub(crate) fn prefix(&self) -> String {
        format!("[1, {},", json::to_string(&self.task_id))
    }

    /// Returns the position as a score of a sorted set.
    pub(crate) fn score(&self) -> String {
        self.index
            .map_or_else(|| "+inf".to_owned(), |index| index.to_string())
    }
}

/// State of a chord after a part was recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChordState {
    /// The delivery is no longer held; nothing was recorded.
    NotHeld,
    /// Parts are missing, or another worker runs the body.
    Waiting,
    /// The header is complete, and this worker has to send the body.
    Complete {
        /// All parts in order, each `[1, task id, status, result]`.
        parts: Vec<Value>,
        /// Structure of the header, if it is more than a list of tasks.
        group: Option<Value>,
    },
}
