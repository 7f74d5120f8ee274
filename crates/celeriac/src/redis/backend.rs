//! [`ResultBackend`] on Redis, under Celery's keys.

use async_trait::async_trait;
use redis::pipe;

use super::{RedisBroker, ack::StoredResult, commands, names, scripts};
use crate::{
    broker::{BrokerError, ChordPart, ChordState, Delivery, ResultBackend},
    result::ResultMeta,
    task_id::TaskId,
};

impl RedisBroker {
    pub(super) fn stored(&self, meta: &ResultMeta) -> StoredResult {
        StoredResult {
            key: names::result(&meta.task_id),
            text: meta.encode(),
            seconds: self.result_seconds(),
        }
    }

    /// Returns the lifetime of results in whole seconds.
    pub(super) fn result_seconds(&self) -> u64 {
        self.config.result_ttl.as_secs().max(1)
    }
}

#[async_trait]
impl ResultBackend for RedisBroker {
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        if !meta.status.is_final() {
            return self.store_unless_ended(meta).await;
        }
        let mut pipeline = pipe();
        pipeline.atomic();
        self.stored(meta).add_to(&mut pipeline);
        self.commands.pipeline(commands::STORE, &pipeline).await
    }

    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        let mut script = scripts::STORE_UNLESS_FINAL.prepare_invoke();
        script
            .key(names::result(&meta.task_id))
            .arg(meta.encode())
            .arg(self.result_seconds());
        self.commands.script(&script).await
    }

    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError> {
        let raw: Option<Vec<u8>> = self.commands.command(commands::GET, names::result(id)).await?;
        Ok(raw.and_then(|raw| ResultMeta::decode(&raw)))
    }

    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError> {
        self.watch.final_result(id).await
    }

    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError> {
        self.record_part(delivery, part).await
    }
}
