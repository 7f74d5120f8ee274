//! The dead-letter list `celeriac.dead`, newest first. A letter is added in the step that removes the message
//! from its worker, and removed in the step that returns the message to a queue.

use async_trait::async_trait;

use super::{RedisBroker, commands, destination::Destination, restore::Judged, script::Invocation, scripts};
use crate::{
    broker::{BrokerError, DeadLetter, DeadLetters, DeliveryTag, RequeuedMessage, ResultBackend as _},
    log::warn,
    result::Status,
};

impl RedisBroker {
    /// Moves a reserved message to the dead-letter list if its delivery is still held. Returns whether the
    /// message was moved.
    ///
    /// For another worker's delivery, `judged` is the score by which the worker was judged to be dead.
    pub(super) async fn bury_held(
        &self,
        tag: &DeliveryTag,
        queue: &str,
        raw: &[u8],
        reason: &str,
        judged: Option<&Judged>,
    ) -> Result<bool, BrokerError> {
        let capacity = self.config.dead_letter_capacity.max(1);
        let mut script = Invocation::on_delivery(&scripts::BURY, self.names(), tag);
        script
            .key(&self.names().dead)
            .arg(DeadLetter::encode(queue, raw, reason))
            .arg(capacity);
        if let Some(judged) = judged {
            judged.add_to(&mut script);
        }
        let dropped = self.commands.script(&script).await?;
        log_dropped(dropped, capacity);
        Ok(dropped >= 0)
    }

    /// Reports a dead letter that a settlement has added, and drops the oldest ones if the list is too long.
    pub(super) async fn added_dead_letter(&self, queue: &str) {
        self.commands.observer.buried(queue);
        let capacity = self.config.dead_letter_capacity.max(1);
        let mut script = Invocation::new(&scripts::TRIM_DEAD);
        script.key(&self.names().dead).arg(capacity);
        // Repeated with the next letter if it fails.
        log_dropped(self.commands.script(&script).await.unwrap_or(0), capacity);
    }
}

fn log_dropped(dropped: i64, capacity: usize) {
    if dropped > 0 {
        warn!(
            queue.dropped = dropped,
            queue.capacity = capacity,
            "the dead-letter list is full; the oldest dead letters were dropped"
        );
    }
}

#[async_trait]
impl DeadLetters for RedisBroker {
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Counted from the end, where the oldest letter is.
        let last = i64::try_from(offset).unwrap_or(i64::MAX - 1) + 1;
        let first = last.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX) - 1);
        let range = (&self.names().dead, -first, -last);
        let entries: Vec<Vec<u8>> = self.commands.command(commands::LRANGE, range).await?;
        Ok(entries.into_iter().rev().map(DeadLetter::decode).collect())
    }

    async fn dead_letter_count(&self) -> Result<u64, BrokerError> {
        self.commands.command(commands::LLEN, &self.names().dead).await
    }

    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&RequeuedMessage>,
    ) -> Result<bool, BrokerError> {
        let mut script = Invocation::new(&scripts::TAKE_DEAD);
        script.key(&self.names().dead).arg(&letter.entry);
        if let Some(RequeuedMessage { queue, priority, raw }) = revived {
            let destination = Destination::Queue {
                queue: queue.clone(),
                priority: *priority,
            };
            script.message(self.names(), &destination, raw);
            match (&letter.task_id, &self.results) {
                (Some(id), None) => {
                    script.key(self.names().result(id));
                }
                (Some(id), Some(results)) => {
                    let id = std::slice::from_ref(id);
                    if results.statuses(id).await? == [Some(Status::Failure)] {
                        results.forget(id).await?;
                    }
                }
                (None, _) => {}
            }
        }
        self.commands.script(&script).await
    }
}
