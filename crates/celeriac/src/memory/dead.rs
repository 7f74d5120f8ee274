//! The dead letters of the broker inside the process, kept as Redis would keep them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    MemoryBroker,
    state::{Kept, step},
};
use crate::{
    broker::BrokerError,
    dead::{DeadLetter, DeadLetters, Revived},
};

#[async_trait]
impl DeadLetters for MemoryBroker {
    async fn dead_letters(&self, offset: usize, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let entries: Vec<Vec<u8>> = {
            let state = self.state();
            state.dead.iter().skip(offset).take(limit).cloned().collect()
        };
        Ok(entries.into_iter().map(DeadLetter::decode).collect())
    }

    async fn dead_letter_count(&self) -> Result<u64, BrokerError> {
        Ok(self.state().dead.len() as u64)
    }

    async fn take_dead_letter(
        &self,
        letter: &DeadLetter,
        revived: Option<&Revived>,
    ) -> Result<bool, BrokerError> {
        {
            let mut state = self.state();
            let Some(place) = state.dead.iter().position(|entry| *entry == letter.entry) else {
                return Ok(false);
            };
            if let Some(Revived { queue, priority, raw }) = revived {
                if state.waiting + state.reserved.len() >= self.capacity {
                    return Err(BrokerError::Full {
                        capacity: self.capacity,
                    });
                }
                // Its first publisher was told of the end long ago; nobody waits for this one.
                let (ended, _) = oneshot::channel();
                let kept = Kept {
                    raw: raw.clone(),
                    step: step(*priority),
                    ended: Arc::new(ended),
                };
                state.append(queue, kept);
            }
            state.dead.remove(place);
        }
        self.arrived.notify_waiters();
        Ok(true)
    }
}
