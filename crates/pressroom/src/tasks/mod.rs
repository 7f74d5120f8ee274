//! Background work: the outbox that remembers it, the dispatcher that publishes it, the worker
//! that runs it and the notifier that delivers.

mod backlog;
mod dispatcher;
mod notification;
pub mod notifier;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

pub use self::{
    backlog::watch_backlog,
    dispatcher::{Dispatcher, Durability},
    notification::{NotificationTask, TASK_NAME, deliveries_to_forget},
};
use crate::accounts::UserId;

/// What happened to an article.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArticleEvent {
    Created,
    Updated,
}

impl ArticleEvent {
    /// The word that stands for it in a task's arguments.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }
}

/// A notification task to be written in the same commit as the change it tells of. Its arguments
/// are the article's id, known only to that commit, and the event.
#[derive(Debug, Clone)]
pub struct NewOutboxTask {
    /// The Celery task id; chosen here so that publishing twice is recognisably the same task.
    pub task_id: Uuid,
    pub event: ArticleEvent,
    /// Propagation headers (`traceparent`, `tracestate`, `baggage`) of the request.
    pub trace: Vec<(String, String)>,
    pub created_at: Timestamp,
}

/// A task waiting in the outbox, claimed for publishing.
#[derive(Debug, Clone)]
pub struct OutboxTask {
    /// The row's number.
    pub id: i64,
    pub task_id: Uuid,
    /// The Celery task name.
    pub name: String,
    /// Positional arguments, a JSON array.
    pub args: Vec<serde_json::Value>,
    pub trace: Vec<(String, String)>,
    pub created_at: Timestamp,
    /// How often it was claimed, this time included.
    pub attempts: i32,
}

/// How much the outbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub tasks: i64,
    pub oldest: Option<Timestamp>,
}

/// Someone to notify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub id: UserId,
    pub email: String,
    pub name: String,
}

/// One notification: this task's, to this user, by this channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryKey {
    pub task_id: Uuid,
    pub recipient: UserId,
    /// `smtp`, `webhook` or `log`.
    pub channel: &'static str,
}

/// Whether a delivery may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryClaim {
    /// It is ours until the lease runs out; mark it delivered afterwards.
    Claimed,
    /// It was made before.
    Delivered,
    /// Another run holds it and may still be at it.
    Held {
        /// How long until its lease runs out.
        remaining: Duration,
    },
}
