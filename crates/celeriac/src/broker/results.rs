//! What a result backend does: it keeps and announces the state of every task. The same broker handle does it as
//! queues messages, because a task's end and its result are one step.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{delivery::Delivery, error::BrokerError, sealed::Sealed};
use crate::{
    json,
    result::{ResultMeta, Status},
    task_id::TaskId,
};

/// Keeps task results and tells who waits for them.
#[async_trait]
pub trait ResultBackend: Sealed + fmt::Debug + Send + Sync + 'static {
    /// Stores and announces a result. A state that is not final never takes the place of one that is.
    ///
    /// # Errors
    /// When the backend did not confirm; repeating the call is harmless.
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError>;

    /// Stores and announces a result of any state, unless there is one already that is final.
    ///
    /// # Errors
    /// When the backend did not confirm; repeating the call is harmless.
    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError>;

    /// The result of a task; `None` while it has none.
    ///
    /// # Errors
    /// When the backend cannot be reached.
    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError>;

    /// Waits until the task has ended, for as long as it takes: the caller sets the time-out. An outage of the backend
    /// is waited out; what happened meanwhile is seen after it.
    ///
    /// # Errors
    /// When as many results are waited for as the backend can watch.
    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError>;

    /// Records the result of a part of a chord's header, once however often it is called, while the delivery is held.
    /// Whoever records the last part has to run the body, which it does with [`Broker::settle`].
    ///
    /// # Errors
    /// When the backend did not confirm; repeating the call is harmless.
    ///
    /// [`Broker::settle`]: crate::Broker::settle
    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError>;
}

/// The result of one task of a chord's header.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChordPart {
    /// The header's id.
    pub group: String,
    /// The place of the task in the header; the last without one.
    pub index: Option<u64>,
    /// The task.
    pub task_id: TaskId,
    /// How it ended.
    pub status: Status,
    /// Its return value, or its exception as results have it.
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

    /// What is kept until the header is complete, in Celery's encoding.
    pub(crate) fn encode(&self) -> String {
        json::to_string(&json!([1, self.task_id, self.status, self.result]))
    }

    /// What the encoding of every result of this task begins with.
    pub(crate) fn prefix(&self) -> String {
        format!("[1, {},", json::to_string(&self.task_id))
    }

    /// The position as Redis has it.
    pub(crate) fn score(&self) -> String {
        self.index
            .map_or_else(|| "+inf".to_owned(), |index| index.to_string())
    }
}

/// Where a chord stands after one of its parts was recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChordState {
    /// The delivery is not held any more: nothing was recorded.
    NotHeld,
    /// Parts are missing, or somebody else runs the body.
    Waiting,
    /// The header is complete.
    Complete {
        /// All parts in order, each `[1, task id, status, result]`.
        parts: Vec<Value>,
        /// The header's structure, if it is more than a list of tasks.
        group: Option<Value>,
    },
}
