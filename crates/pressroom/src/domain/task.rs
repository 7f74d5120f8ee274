//! Background tasks in the outbox, and the notifications that they deliver.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{account::UserId, article::ArticleId};

/// Celery name of the task that notifies readers of a new or changed article, as in the reference
/// implementation.
pub const ARTICLE_NOTIFICATION: &str = "app.jobs.tasks.send_article_notification";

/// A change to an article.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArticleEvent {
    Created,
    Updated,
}

impl ArticleEvent {
    /// Returns the event's name in a task's arguments.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }
}

/// A task to write to the outbox, in the same transaction as the change to an article.
///
/// Its arguments are the article's id, which is only known in that transaction, and the event.
#[derive(Debug, Clone)]
pub struct NewOutboxTask {
    /// Celery task id, chosen before the task is published so that a task published twice keeps its id.
    pub task_id: Uuid,
    /// Celery task name.
    pub name: &'static str,
    pub event: ArticleEvent,
    /// Propagation headers (`traceparent`, `tracestate`, `baggage`) of the request.
    pub trace: Vec<(String, String)>,
    pub created_at: Timestamp,
}

/// A task claimed from the outbox for publishing.
#[derive(Debug, Clone)]
pub struct OutboxTask {
    /// Primary key of the outbox row.
    pub id: i64,
    pub task_id: Uuid,
    /// Celery task name.
    pub name: String,
    /// Positional arguments.
    pub args: Vec<serde_json::Value>,
    pub trace: Vec<(String, String)>,
    pub created_at: Timestamp,
    /// Number of claims, including this one.
    pub attempts: i32,
}

/// Batch in which a task was published: its number in the publication log of the process that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedBatch {
    pub log: Uuid,
    pub number: i64,
}

/// A task that was published and is not known to have finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedTask {
    /// Primary key of the row, the same as that of the outbox row.
    pub id: i64,
    pub task_id: Uuid,
    pub batch: PublishedBatch,
    /// Number of times that the task was published.
    pub sends: i32,
    pub published_at: Timestamp,
}

/// The size and age of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub tasks: i64,
    /// Creation time of the oldest task.
    pub oldest: Option<Timestamp>,
}

/// An event that readers are to be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifiedEvent {
    pub task_id: Uuid,
    pub author: UserId,
    pub article: ArticleId,
    pub event: ArticleEvent,
}

impl NotifiedEvent {
    /// Returns the start of the period whose events count towards the limits of an event at `now`.
    #[must_use]
    pub fn limited_since(now: Timestamp) -> Timestamp {
        now.checked_sub(SignedDuration::from_hours(1))
            .unwrap_or(Timestamp::MIN)
    }
}

/// A user to notify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub id: UserId,
    pub email: String,
    pub name: String,
}

/// Key of one delivery: a task, a recipient and a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryKey {
    pub task_id: Uuid,
    pub recipient: UserId,
    /// `smtp`, `webhook` or `log`.
    pub channel: &'static str,
}

/// Result of an attempt to claim a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryClaim {
    /// The caller holds the claim until the lease expires, and must record the completed delivery.
    Claimed,
    /// The delivery was completed earlier.
    Delivered,
    /// Another run of the task holds the claim.
    Held {
        /// Time until the other run's lease expires.
        remaining: Duration,
    },
}

impl DeliveryClaim {
    /// Returns the result for a delivery that another run holds until `until`.
    #[must_use]
    pub fn held(until: Timestamp, now: Timestamp) -> Self {
        Self::Held {
            remaining: until.duration_since(now).try_into().unwrap_or(Duration::ZERO),
        }
    }
}
