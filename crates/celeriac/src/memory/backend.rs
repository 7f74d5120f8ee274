//! [`ResultBackend`] of the in-process broker.

use async_trait::async_trait;
use serde_json::Value;

use super::MemoryBroker;
use crate::{
    broker::{BrokerError, ChordPart, ChordState, Delivery, ResultBackend},
    result::{ResultMeta, Status},
    task_id::TaskId,
};

#[async_trait]
impl ResultBackend for MemoryBroker {
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        self.contents.lock().store([meta]);
        self.stored.notify_waiters();
        Ok(())
    }

    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        self.contents.lock().store_unless_ended([meta]);
        self.stored.notify_waiters();
        Ok(())
    }

    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError> {
        Ok(self.contents.lock().results.get(id).cloned())
    }

    async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError> {
        let contents = self.contents.lock();
        let status = |id| contents.results.get(id).map(|meta| meta.status.clone());
        Ok(ids.iter().map(status).collect())
    }

    async fn group(&self, id: &str) -> Result<Option<Value>, BrokerError> {
        Ok(self.contents.lock().chords.structure(id).cloned())
    }

    async fn forget(&self, ids: &[TaskId]) -> Result<(), BrokerError> {
        let mut contents = self.contents.lock();
        for id in ids {
            contents.results.remove(id);
        }
        contents.result_order.retain(|id| !ids.contains(id));
        Ok(())
    }

    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError> {
        loop {
            let mut stored = std::pin::pin!(self.stored.notified());
            // Registered before the check; otherwise a result stored in between would be missed.
            stored.as_mut().enable();
            let ended = self.contents.lock().final_result(id).cloned();
            match ended {
                Some(meta) => return Ok(meta),
                None => stored.await,
            }
        }
    }

    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError> {
        let mut contents = self.contents.lock();
        if !contents.holds(&delivery.tag) {
            return Ok(ChordState::NotHeld);
        }
        Ok(contents.chords.record(part))
    }
}
