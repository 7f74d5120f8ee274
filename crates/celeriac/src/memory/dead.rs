//! Dead letters of the in-process broker, encoded as on Redis.

use async_trait::async_trait;

use super::{MemoryBroker, contents::Contents};
use crate::{
    broker::{BrokerError, DeadLetter, DeadLetters, Delivery, RequeuedMessage},
    log::warn,
    result::Status,
};

impl Contents {
    /// Adds a message to the dead letters, and drops the oldest one if there are too many.
    pub(super) fn bury(&mut self, delivery: &Delivery, reason: &str) {
        let letter = DeadLetter::encode(&delivery.queue, &delivery.raw, reason);
        self.dead.push_back(letter.into_bytes());
        let capacity = self.capacity;
        if self.dead.len() > capacity.max(1) {
            self.dead.pop_front();
            warn!(
                queue.dropped = 1,
                queue.capacity = capacity,
                "the dead-letter list is full; the oldest letter was dropped"
            );
        }
    }
}

#[async_trait]
impl DeadLetters for MemoryBroker {
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let entries: Vec<Vec<u8>> = {
            let contents = self.contents.lock();
            contents.dead.iter().skip(offset).take(limit).cloned().collect()
        };
        Ok(entries.into_iter().map(DeadLetter::decode).collect())
    }

    async fn dead_letter_count(&self) -> Result<u64, BrokerError> {
        Ok(self.contents.lock().dead.len() as u64)
    }

    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&RequeuedMessage>,
    ) -> Result<bool, BrokerError> {
        {
            let mut contents = self.contents.lock();
            let Some(position) = contents.dead.iter().position(|entry| *entry == letter.entry) else {
                return Ok(false);
            };
            if let Some(RequeuedMessage { queue, priority, raw }) = revived {
                contents.ensure_room(1)?;
                contents.publish(queue, *priority, raw.clone());
                if let Some(id) = &letter.task_id
                    && contents
                        .results
                        .get(id)
                        .is_some_and(|meta| meta.status == Status::Failure)
                {
                    contents.results.remove(id);
                    contents.result_order.retain(|other| other != id);
                }
            }
            contents.dead.remove(position);
        }
        self.arrived.notify_waiters();
        Ok(true)
    }
}
