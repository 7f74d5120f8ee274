//! Handle to a future result, like Celery's `AsyncResult` and `GroupResult`.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    broker::{Broker, BrokerError, Publication},
    control::Control,
    exception::Exception,
    result::{ResultMeta, Status},
    result_tree::ResultTree,
    task_id::TaskId,
};

/// Handle to the result of a task or group, and to the results before it.
#[derive(Debug, Clone)]
pub struct AsyncResult {
    broker: Arc<dyn Broker>,
    tree: Arc<ResultTree>,
}

/// Reason a wait ended without a return value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The task did not finish in time. It may still finish later.
    #[error("the task did not finish in time")]
    TimedOut,
    /// The task, or an earlier task in its chain, failed.
    #[error("task {id} failed with {}", exception.type_name)]
    Failed {
        /// Id of the failed task.
        id: TaskId,
        /// Exception it failed with.
        exception: Exception,
    },
    /// The task, or an earlier task in its chain, was revoked or had expired.
    #[error("task {id} was revoked")]
    Revoked {
        /// Id of the revoked task.
        id: TaskId,
        /// Reason: `expired`, `revoked` or `terminated`.
        reason: String,
    },
    /// The return value does not have the type that the caller asked for.
    #[error("task {id} returned another type than expected: {reason}")]
    Type {
        /// Id of the task.
        id: TaskId,
        /// Description of the difference, without the value.
        reason: String,
    },
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl AsyncResult {
    pub(crate) fn new(broker: Arc<dyn Broker>, tree: impl Into<Arc<ResultTree>>) -> Self {
        Self {
            broker,
            tree: tree.into(),
        }
    }

    /// Returns the id of the task, of the last task of a chain, of a chord's body, or of a group.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.tree.id
    }

    /// Returns the previous result: of the task before this one in a chain, or of a chord's header.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let parent = self.tree.parent.as_ref()?;
        Some(Self::new(Arc::clone(&self.broker), Arc::clone(parent)))
    }

    /// Returns the results of a group's parts, in order; empty for results that are not a group.
    #[must_use]
    pub fn children(&self) -> Vec<Self> {
        let children = self.tree.children.iter().flatten();
        children
            .map(|child| Self::new(Arc::clone(&self.broker), Arc::clone(child)))
            .collect()
    }

    /// Returns Celery's encoding of the result, `[[id, parent], children]`, from which Python's
    /// `result_from_tuple` creates a result.
    #[must_use]
    pub fn as_tuple(&self) -> Value {
        self.tree.as_tuple()
    }

    /// Stores the structure of the result, from which [`Client::saved_result`](crate::Client::saved_result) and
    /// Celery's `GroupResult.restore` recreate it in another process. Needed for groups, because the id of a group
    /// does not identify its members.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn save(&self) -> Result<(), BrokerError> {
        let structure = json!({"result": self.as_tuple()});
        let publication = Publication {
            groups: vec![(self.tree.id.to_string(), structure)],
            ..Publication::default()
        };
        self.broker.publish_together(&publication).await
    }

    /// Returns the state of the task; `None` if it has none yet, which Celery calls `PENDING`. A group has no state
    /// of its own.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn state(&self) -> Result<Option<Status>, BrokerError> {
        let ids = std::slice::from_ref(&self.tree.id);
        Ok(self.broker.statuses(ids).await?.pop().flatten())
    }

    /// Returns the result of the task, or `None` if it has none yet.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn result(&self) -> Result<Option<ResultMeta>, BrokerError> {
        self.broker.result(&self.tree.id).await
    }

    /// Asks all workers not to start the task, or the tasks of a group, and with `terminate` to abort tasks that
    /// are running. Returns the number of workers that have received the command.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    pub async fn revoke(&self, terminate: bool) -> Result<usize, BrokerError> {
        let mut ids = Vec::new();
        self.tree.tasks(&mut ids);
        let arguments = json!({"task_id": ids, "terminate": terminate, "signal": "SIGTERM"});
        let Value::Object(arguments) = arguments else {
            return Ok(0);
        };
        Control::new(Arc::clone(&self.broker))
            .cast("revoke", arguments)
            .await
    }

    /// Deletes the result, the results before it, and those of a group's tasks.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    pub async fn forget(&self) -> Result<(), BrokerError> {
        let mut ids = Vec::new();
        self.tree.all(&mut ids);
        self.broker.forget(&ids).await
    }

    /// Waits for the return value, like [`wait`](Self::wait), and converts it into `T`.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait_as<T: DeserializeOwned>(&self, time: Duration) -> Result<T, WaitError> {
        let value = self.wait(time).await?;
        serde_json::from_value(value).map_err(|error| WaitError::Type {
            id: self.tree.id.clone(),
            reason: kind_of(&error),
        })
    }

    /// Waits for the return value; for a group, for the list of its parts' return values.
    ///
    /// A failure of an earlier task in the chain also ends the wait, because this task will never run.
    ///
    /// # Errors
    /// See [`WaitError`]. A task that ignores its result stores none, so the wait times out.
    pub async fn wait(&self, time: Duration) -> Result<Value, WaitError> {
        timeout(time, value(self.broker.as_ref(), &self.tree))
            .await
            .unwrap_or(Err(WaitError::TimedOut))
    }
}

/// Describes a type error without the value, which may be sensitive.
fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "it does not have the expected fields".to_owned(),
    }
}

/// Returns the value of a result, or the first failure that prevents it.
fn value<'a>(broker: &'a dyn Broker, tree: &'a ResultTree) -> BoxFuture<'a, Result<Value, WaitError>> {
    Box::pin(async move {
        let mut ancestors: FuturesUnordered<_> = ancestors(tree).map(|id| broker.watch(id)).collect();
        let mut own = std::pin::pin!(own_value(broker, tree));
        loop {
            tokio::select! {
                biased;
                value = &mut own => return value,
                Some(ended) = ancestors.next() => {
                    // The value is not needed, but a failure ends the wait.
                    returned(ended?)?;
                }
            }
        }
    })
}

async fn own_value(broker: &dyn Broker, tree: &ResultTree) -> Result<Value, WaitError> {
    let Some(children) = &tree.children else {
        return returned(broker.watch(&tree.id).await?);
    };
    let parts = children.iter().map(|child| value(broker, child));
    futures_util::future::try_join_all(parts).await.map(Value::Array)
}

/// Returns the ids of the single tasks before this result. Headers of chords are skipped, because a failure in
/// a header fails the body.
fn ancestors(tree: &ResultTree) -> impl Iterator<Item = &TaskId> {
    std::iter::successors(tree.parent.as_deref(), |tree| tree.parent.as_deref())
        .filter(|tree| tree.children.is_none())
        .map(|tree| &tree.id)
}

pub(crate) fn returned(meta: ResultMeta) -> Result<Value, WaitError> {
    match meta.status {
        Status::Failure => Err(WaitError::Failed {
            exception: meta.exception(),
            id: meta.task_id,
        }),
        Status::Revoked => Err(WaitError::Revoked {
            reason: meta.exception().message,
            id: meta.task_id,
        }),
        _ => Ok(meta.result),
    }
}
