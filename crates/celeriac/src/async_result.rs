//! A handle on a result that is yet to come, as Celery's `AsyncResult` and `GroupResult`.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::Value;
use thiserror::Error;
use tokio::time::{error::Elapsed, timeout};

use crate::{
    broker::{Broker, BrokerError},
    exception::Exception,
    result::{ResultMeta, Status},
    result_tree::ResultTree,
    task_id::TaskId,
};

/// The results of what was sent: one task, or a group of them, and what had to end before.
#[derive(Clone)]
pub struct AsyncResult {
    broker: Arc<dyn Broker>,
    tree: Arc<ResultTree>,
}

/// Why there is no return value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The task has not ended in time. It may still do.
    #[error("the task has not ended in time")]
    TimedOut,
    /// It, or a task before it in its chain, failed for good.
    #[error("task {id} failed with {}", exception.type_name)]
    Failed {
        /// The task that failed.
        id: TaskId,
        /// With what.
        exception: Exception,
    },
    /// It, or a task before it in its chain, was revoked or had expired.
    #[error("task {id} was revoked")]
    Revoked {
        /// The task that was revoked.
        id: TaskId,
        /// `expired`, `revoked` or `terminated`.
        reason: String,
    },
    /// The result cannot be asked for.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl From<Elapsed> for WaitError {
    fn from(_: Elapsed) -> Self {
        Self::TimedOut
    }
}

impl fmt::Debug for AsyncResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncResult").field(&self.tree).finish()
    }
}

impl AsyncResult {
    pub(crate) fn new(broker: Arc<dyn Broker>, tree: impl Into<Arc<ResultTree>>) -> Self {
        Self {
            broker,
            tree: tree.into(),
        }
    }

    /// The id of the task, of the last task of a chain, of a chord's body, or of a group.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.tree.id
    }

    /// The result before this one: of the task before in a chain, or of a chord's header.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let parent = self.tree.parent.as_ref()?;
        Some(Self::new(Arc::clone(&self.broker), Arc::clone(parent)))
    }

    /// The results of a group's parts in their order; empty for anything else.
    #[must_use]
    pub fn children(&self) -> Vec<Self> {
        let children = self.tree.children.iter().flatten();
        children
            .map(|child| Self::new(Arc::clone(&self.broker), Arc::clone(child)))
            .collect()
    }

    /// Waits for the return value; for a group, for the list of those of its parts.
    ///
    /// A failure before it in its chain ends the wait too, because then this task will never run.
    ///
    /// # Errors
    /// See [`WaitError`]. The result of a task that ignores it never comes: the wait times out.
    pub async fn wait(&self, time: Duration) -> Result<Value, WaitError> {
        timeout(time, value(self.broker.as_ref(), &self.tree)).await?
    }
}

/// The value of one result, or the first failure that keeps it from coming.
fn value<'a>(broker: &'a dyn Broker, tree: &'a ResultTree) -> BoxFuture<'a, Result<Value, WaitError>> {
    Box::pin(async move {
        let mut ancestors: FuturesUnordered<_> = ancestors(tree).map(|id| broker.watch(id)).collect();
        let mut own = std::pin::pin!(own_value(broker, tree));
        loop {
            tokio::select! {
                value = &mut own => return value,
                Some(ended) = ancestors.next() => {
                    // Its value is not asked for, only whether it stands in the way.
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

/// The single tasks before this one. A chord's body is told of what happens in the header, so that is not looked at.
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
