//! Fields of Celery's events, by type of event.

use serde::Deserialize;
use serde_json::Value;

use crate::{event::Event, task_id::TaskId};

/// Fields of an [`Event`], by event type. Fields that the sender omits are `None`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum EventDetails {
    /// A worker has started.
    #[serde(rename = "worker-online")]
    WorkerOnline(WorkerStatus),
    /// A worker is running.
    #[serde(rename = "worker-heartbeat")]
    WorkerHeartbeat(WorkerStatus),
    /// A worker has stopped.
    #[serde(rename = "worker-offline")]
    WorkerOffline(WorkerStatus),
    /// A client has sent a task.
    #[serde(rename = "task-sent")]
    TaskSent(TaskDescription),
    /// A worker has received a task.
    #[serde(rename = "task-received")]
    TaskReceived(TaskDescription),
    /// A task has started.
    #[serde(rename = "task-started")]
    #[non_exhaustive]
    TaskStarted {
        /// Id of the task.
        uuid: TaskId,
    },
    /// A task has succeeded.
    #[serde(rename = "task-succeeded")]
    #[non_exhaustive]
    TaskSucceeded {
        /// Id of the task.
        uuid: TaskId,
        /// Return value in Python notation, shortened.
        result: Option<String>,
        /// Run time in seconds.
        runtime: Option<f64>,
    },
    /// A task has failed.
    #[serde(rename = "task-failed")]
    TaskFailed(TaskFailure),
    /// A task has failed and will be retried.
    #[serde(rename = "task-retried")]
    TaskRetried(TaskFailure),
    /// A task was revoked.
    #[serde(rename = "task-revoked")]
    #[non_exhaustive]
    TaskRevoked {
        /// Id of the task.
        uuid: TaskId,
        /// Whether the task was running.
        #[serde(default)]
        terminated: bool,
        /// Signal that terminated the task: a number or a name.
        #[serde(default)]
        signum: Value,
        /// Whether the task had expired.
        #[serde(default)]
        expired: bool,
    },
    /// A task has rejected its message.
    #[serde(rename = "task-rejected")]
    #[non_exhaustive]
    TaskRejected {
        /// Id of the task.
        uuid: TaskId,
        /// Whether the message returns to its queue.
        #[serde(default)]
        requeue: bool,
    },
    /// An event of another type, or with fields of unexpected types.
    #[serde(other)]
    Other,
}

/// State of a worker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Interval between heartbeats in seconds.
    pub freq: Option<f64>,
    /// Number of running tasks.
    pub active: Option<u64>,
    /// Number of tasks that the worker has processed.
    pub processed: Option<u64>,
    /// Load of the machine in the last 1, 5 and 15 minutes.
    pub loadavg: Option<[f64; 3]>,
    /// Name of the worker's software.
    pub sw_ident: Option<String>,
    /// Version of the worker's software.
    pub sw_ver: Option<String>,
    /// Operating system.
    pub sw_sys: Option<String>,
}

/// Call of a task; the arguments are in Python notation, shortened.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct TaskDescription {
    /// Id of the task.
    pub uuid: TaskId,
    /// Name of the task.
    pub name: Option<String>,
    /// Positional arguments.
    pub args: Option<String>,
    /// Keyword arguments.
    pub kwargs: Option<String>,
    /// First task of the tree that the task belongs to.
    pub root_id: Option<TaskId>,
    /// Task that sent this one.
    pub parent_id: Option<TaskId>,
    /// Number of earlier attempts.
    pub retries: Option<u32>,
    /// Earliest time to run, in ISO 8601.
    pub eta: Option<String>,
    /// Expiry time, in ISO 8601.
    pub expires: Option<String>,
    /// Queue; only in [`EventDetails::TaskSent`].
    pub queue: Option<String>,
    /// Exchange; only in [`EventDetails::TaskSent`].
    pub exchange: Option<String>,
    /// Routing key; only in [`EventDetails::TaskSent`].
    pub routing_key: Option<String>,
}

/// Failure of one attempt at a task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct TaskFailure {
    /// Id of the task.
    pub uuid: TaskId,
    /// Exception in Python notation.
    pub exception: Option<String>,
    /// Traceback as text.
    pub traceback: Option<String>,
}

impl Event {
    /// Returns the fields of the event, by its type.
    #[must_use]
    pub fn details(&self) -> EventDetails {
        serde_json::from_value(self.body()).unwrap_or(EventDetails::Other)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details(body: Value) -> EventDetails {
        Event::read(body).unwrap().details()
    }

    #[test]
    fn fields_are_read_by_the_type_of_the_event() {
        let succeeded = json!({"type": "task-succeeded", "hostname": "w", "uuid": "1", "result": "5", "runtime": 0.5, "clock": 3});
        let expected = EventDetails::TaskSucceeded {
            uuid: "1".into(),
            result: Some("5".to_owned()),
            runtime: Some(0.5),
        };
        assert_eq!(details(succeeded), expected);
        let heartbeat = details(json!({"type": "worker-heartbeat", "hostname": "w", "active": 2}));
        assert!(matches!(
            heartbeat,
            EventDetails::WorkerHeartbeat(WorkerStatus { active: Some(2), .. })
        ));
        assert_eq!(
            details(json!({"type": "task-progress", "hostname": "w"})),
            EventDetails::Other
        );
        assert_eq!(
            details(json!({"type": "task-started", "hostname": "w"})),
            EventDetails::Other
        );
    }
}
