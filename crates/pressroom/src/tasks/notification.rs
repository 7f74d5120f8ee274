//! The task `app.jobs.tasks.send_article_notification`: notifies readers of a new or changed article.
//!
//! Its name, arguments and result are those of the reference implementation, so that either program can send
//! it and either can run it. Each recipient is notified once on each channel, however often the task runs: a
//! delivery is claimed in the store beforehand, and recorded as completed afterwards.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Exception, Retry, RetryDelay, TaskContext, TaskError, TaskOptions, WorkerBuilder};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use telemetry::{Failure, KeyValue, Span};
use uuid::Uuid;

use super::notifier::{Channel, Notification, NotifyError};
use crate::{
    clock::Clock,
    domain::{
        ARTICLE_NOTIFICATION, Article, ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent,
        Recipient, UserId,
    },
    names::{attribute, metric, span},
    store::{Store, StoreError, lease_end},
};

static DELIVERIES: telemetry::Counter = telemetry::counter(
    metric::NOTIFICATIONS_DELIVERIES,
    "{delivery}",
    "Attempts to deliver notifications, by channel and result",
);

/// Number of recipients per query.
const PAGE: u16 = 100;

/// Lease of a delivery. After it expires, another run of the task may claim the delivery.
const DELIVERY_LEASE: Duration = Duration::from_mins(1);

/// Maximum time for which a run waits for an unavailable database or receiver. After that, only the task's
/// few retries remain. Well below the soft time limit.
const MAX_OUTAGE: Duration = Duration::from_secs(150);

/// Number of transient failures after which a receiver is considered unavailable, and the remaining
/// recipients are left to the next attempt. More than one, because a failure may affect a single recipient.
const UNAVAILABLE_AFTER: usize = 3;

/// Back-off within a run.
const BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    jitter: true,
};

/// Dependencies of the task.
#[derive(Debug, Clone)]
pub struct NotificationTask {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Channels on which each recipient is notified.
    pub channels: Arc<[Arc<dyn Channel>]>,
    /// Maximum number of events per author and hour that readers are notified of; `None` means no limit.
    pub author_limit: Option<NonZeroU32>,
}

/// Reason a run failed. The task is retried after any of them.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{failed} deliveries failed, one of them because {last}")]
    Undelivered { failed: usize, last: NotifyError },
    /// Another run holds the claim on a delivery, or died while holding it.
    #[error("another run of this task holds a delivery")]
    Held { remaining: Duration },
}

impl RunError {
    /// Returns the minimum delay before another attempt within the same run; `None` if that would not help.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Held { remaining } => Some(*remaining),
            Self::Store(StoreError::Unavailable(_)) => Some(Duration::ZERO),
            Self::Undelivered { last, .. } if last.is_transient() => Some(Duration::ZERO),
            Self::Store(_) | Self::Undelivered { .. } => None,
        }
    }

    /// Whether the store has logged the failure, once for all tasks.
    fn is_logged(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }
}

impl Failure for RunError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(error) => error.error_type(),
            Self::Undelivered { .. } => Some("undelivered".into()),
            Self::Held { .. } => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// Result of one delivery.
enum DeliveryResult {
    Now,
    Before,
    Held(Duration),
    Failed(NotifyError),
}

impl NotificationTask {
    /// Registers this task with a worker. Its limits are those of the reference implementation.
    pub fn register(self, worker: WorkerBuilder) -> WorkerBuilder {
        let options = TaskOptions::new()
            .max_retries(3)
            .soft_time_limit(Duration::from_secs(240))
            .time_limit(Duration::from_secs(300))
            .track_started(true)
            .log_arguments(true)
            .parameters(&["article_id", "event_type"]);
        worker.task(
            ARTICLE_NOTIFICATION,
            options,
            move |context, (article_id, event): (i32, String)| {
                let task = self.clone();
                async move { task.run(&context, ArticleId(article_id), &event).await }
            },
        )
    }

    async fn run(&self, context: &TaskContext, article: ArticleId, event: &str) -> Result<Value, TaskError> {
        let event = match event {
            "created" => ArticleEvent::Created,
            "updated" => ArticleEvent::Updated,
            _ => {
                return Err(TaskError::Failed(exception(
                    "ValueError",
                    format!("unknown event type for article {}", article.0),
                )));
            }
        };
        let result = Span::internal(span::JOB_SEND_NOTIFICATION)
            .attribute(KeyValue::new(attribute::JOB_NAME, "send_article_notification"))
            .attribute(KeyValue::new(attribute::JOB_ID, context.id.to_string()))
            .attribute(KeyValue::new(
                attribute::JOB_ATTEMPT,
                i64::from(context.retries) + 1,
            ))
            .attribute(KeyValue::new(attribute::ARTICLE_ID, i64::from(article.0)))
            .attribute(KeyValue::new(attribute::EVENT_TYPE, event.as_str()))
            .run(self.notify_with_retries(task_uuid(&context.id), article, event))
            .await;
        result.map_err(|error| {
            let retry = Retry::new(exception("NotificationError", error.to_string()));
            match error {
                RunError::Held { remaining } => retry.countdown(remaining).into(),
                RunError::Store(_) | RunError::Undelivered { .. } => retry.into(),
            }
        })
    }

    /// Retries [`Self::notify`] after transient failures. No recipient is notified twice.
    async fn notify_with_retries(
        &self,
        task: Uuid,
        article: ArticleId,
        event: ArticleEvent,
    ) -> Result<Value, RunError> {
        let mut retries = Retries::new();
        loop {
            let error = match self.notify(task, article, event).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let delay = error.retry_after();
            let Some(delay) = delay.and_then(|min_delay| retries.next_delay(min_delay)) else {
                return Err(error);
            };
            if !error.is_logged() {
                let retry_in_s = delay.as_secs_f64();
                telemetry::warn!(%error, retry.delay = retry_in_s, "cannot notify all recipients; retrying");
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn notify(&self, task_id: Uuid, id: ArticleId, event: ArticleEvent) -> Result<Value, RunError> {
        let Some(article) = self.store.find_article_by_id(id).await? else {
            telemetry::warn!(article.id = id.0, "article not found, no notifications sent");
            return Ok(json!({"status": "error", "error": "Article not found"}));
        };
        telemetry::set_attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()));

        let (mut sent, mut before, mut failed, mut held) = (0_usize, 0_usize, Vec::new(), None);
        let mut transient_failures = vec![0_usize; self.channels.len()];
        let mut after = UserId(0);
        loop {
            let recipients = self.store.recipients(id, event, after, PAGE.into()).await?;
            if after == UserId(0)
                && !recipients.is_empty()
                && !self.within_limits(task_id, &article, event).await?
            {
                telemetry::info!(
                    article.id = id.0,
                    article.slug,
                    event.type = event.as_str(),
                    "no notifications sent, because the author has reached the limit"
                );
                return Ok(json!({"status": "success", "article_id": id.0}));
            }
            for recipient in &recipients {
                for (channel, transient) in self.channels.iter().zip(&mut transient_failures) {
                    if *transient >= UNAVAILABLE_AFTER {
                        continue;
                    }
                    match self
                        .deliver(task_id, &article, event, recipient, channel.as_ref())
                        .await?
                    {
                        DeliveryResult::Now => sent += 1,
                        DeliveryResult::Before => before += 1,
                        DeliveryResult::Held(remaining) => held = held.max(Some(remaining)),
                        DeliveryResult::Failed(error) => {
                            *transient += usize::from(error.is_transient());
                            failed.push(error);
                        }
                    }
                }
            }
            match recipients.last() {
                Some(last) if recipients.len() == usize::from(PAGE) => after = last.id,
                _ => break,
            }
        }
        let count = failed.len();
        // Returns a transient failure if there is one, because only then is another attempt worthwhile.
        if let Some(last) = failed.into_iter().max_by_key(NotifyError::is_transient) {
            return Err(RunError::Undelivered { failed: count, last });
        }
        if let Some(remaining) = held {
            return Err(RunError::Held { remaining });
        }
        telemetry::info!(
            article.id = id.0,
            article.slug,
            event.type = event.as_str(),
            notifications.sent = sent,
            notifications.sent_before = before,
            "Notifications sent"
        );
        Ok(json!({"status": "success", "article_id": id.0}))
    }

    /// Returns whether the limits of the article and of its author allow notifications of this event.
    async fn within_limits(
        &self,
        task_id: Uuid,
        article: &Article,
        event: ArticleEvent,
    ) -> Result<bool, StoreError> {
        if event == ArticleEvent::Created && self.author_limit.is_none() {
            return Ok(true);
        }
        let event = NotifiedEvent {
            task_id,
            author: article.author.id,
            article: article.id,
            event,
        };
        self.store
            .claim_event(&event, self.clock.now(), self.author_limit)
            .await
    }

    async fn deliver(
        &self,
        task_id: Uuid,
        article: &Article,
        event: ArticleEvent,
        recipient: &Recipient,
        channel: &dyn Channel,
    ) -> Result<DeliveryResult, StoreError> {
        let key = DeliveryKey {
            task_id,
            recipient: recipient.id,
            channel: channel.name(),
        };
        let now = self.clock.now();
        match self.store.claim_delivery(&key, now, DELIVERY_LEASE).await? {
            DeliveryClaim::Claimed => {}
            DeliveryClaim::Delivered => return Ok(DeliveryResult::Before),
            DeliveryClaim::Held { remaining } => return Ok(DeliveryResult::Held(remaining)),
        }
        let notification = Notification {
            id: notification_id(&key),
            event,
            article,
            recipient,
            occurred_at: self.clock.now(),
        };
        let delivered = channel.deliver(&notification).await;
        let error_type = delivered.as_ref().err().and_then(NotifyError::error_type);
        let attributes = [
            Some(KeyValue::new(attribute::NOTIFICATION_CHANNEL, channel.name())),
            error_type.map(|error_type| KeyValue::new("error.type", error_type)),
        ];
        DELIVERIES.add(1, &Vec::from_iter(attributes.into_iter().flatten()));
        match delivered {
            Ok(()) => {
                self.complete(&key).await?;
                Ok(DeliveryResult::Now)
            }
            Err(error) => {
                let until = lease_end(now, DELIVERY_LEASE);
                self.store.release_delivery(&key, until).await?;
                telemetry::warn!(
                    notification.channel = channel.name(),
                    recipient.id = recipient.id.0,
                    %error,
                    "notification not delivered"
                );
                Ok(DeliveryResult::Failed(error))
            }
        }
    }

    /// Records a completed delivery. Retried during an outage, because an unrecorded delivery is repeated.
    async fn complete(&self, key: &DeliveryKey) -> Result<(), StoreError> {
        let mut retries = Retries::new();
        loop {
            let error = match self.store.complete_delivery(key, self.clock.now()).await {
                Err(error @ StoreError::Unavailable(_)) => error,
                result => return result,
            };
            let Some(delay) = retries.next_delay(Duration::ZERO) else {
                return Err(error);
            };
            let retry_in_s = delay.as_secs_f64();
            telemetry::warn!(%error, retry.delay = retry_in_s, "cannot record a delivery; retrying");
            tokio::time::sleep(delay).await;
        }
    }
}

/// Retries of one operation, for up to [`MAX_OUTAGE`].
struct Retries {
    start: Instant,
    count: u32,
}

impl Retries {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            count: 0,
        }
    }

    /// Returns the delay before the next attempt, which is at least `min_delay`; `None` when no time is left for
    /// another attempt.
    fn next_delay(&mut self, min_delay: Duration) -> Option<Duration> {
        let delay = BACK_OFF.after(self.count).max(min_delay);
        self.count += 1;
        (self.start.elapsed() + delay <= MAX_OUTAGE).then_some(delay)
    }
}

fn exception(type_name: &str, message: String) -> Exception {
    Exception::new(type_name, message).module("pressroom")
}

/// Returns the time before which deliveries must have been completed for their records to be deleted at
/// `now`. No broker redelivers a task after so long.
#[must_use]
pub fn deliveries_expired_by(now: Timestamp) -> Timestamp {
    now.checked_sub(SignedDuration::from_hours(24 * 30))
        .unwrap_or(Timestamp::MIN)
}

/// Returns the task's id, or a UUID derived from it when its sender does not use UUIDs.
fn task_uuid(id: &str) -> Uuid {
    Uuid::parse_str(id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()))
}

/// Returns an id that is the same for every attempt at a delivery, so that a receiver can detect duplicates.
fn notification_id(key: &DeliveryKey) -> Uuid {
    let name = format!("{}/{}", key.recipient.0, key.channel);
    Uuid::new_v5(&key.task_id, name.as_bytes())
}
