//! [`ResultBackend`] inside the process.

use async_trait::async_trait;

use super::MemoryBroker;
use crate::{
    backend::{ChordPart, ChordState, ResultBackend},
    broker::{BrokerError, Delivery},
    result::ResultMeta,
};

#[async_trait]
impl ResultBackend for MemoryBroker {
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        self.state().store(meta, self.capacity);
        self.stored.notify_waiters();
        Ok(())
    }

    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        {
            let mut state = self.state();
            if !state.has_ended(&meta.task_id) {
                state.store(meta, self.capacity);
            }
        }
        self.stored.notify_waiters();
        Ok(())
    }

    async fn result(&self, id: &str) -> Result<Option<ResultMeta>, BrokerError> {
        Ok(self.state().results.get(id).cloned())
    }

    async fn watch(&self, id: &str) -> Result<ResultMeta, BrokerError> {
        loop {
            let mut stored = std::pin::pin!(self.stored.notified());
            // Before looking, so that what is stored between looking and waiting is noticed.
            stored.as_mut().enable();
            let ended = {
                let state = self.state();
                state
                    .results
                    .get(id)
                    .filter(|meta| meta.status.is_final())
                    .cloned()
            };
            match ended {
                Some(meta) => return Ok(meta),
                None => stored.await,
            }
        }
    }

    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError> {
        let mut state = self.state();
        if !state.holds(&delivery.tag) {
            return Ok(ChordState::NotHeld);
        }
        Ok(state.chords.record(part))
    }
}
