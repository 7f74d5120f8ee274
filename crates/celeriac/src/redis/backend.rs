//! [`ResultBackend`] on Redis, under Celery's keys.

use async_trait::async_trait;
use redis::pipe;
use serde_json::Value;

use super::{
    RedisBroker, chord_scripts::PartRecord, commands, counter::Counter, names, script::Invocation, scripts,
    settling::StoredResult, written::Write,
};
use crate::{
    broker::{BrokerError, ChordPart, ChordState, Delivery, ResultBackend},
    log::warn,
    result::{ResultMeta, Status},
    task_id::TaskId,
};

/// Offset of the last byte that is read to get the status of a stored result, which may be large.
const STATUS_END: isize = 63;

impl RedisBroker {
    pub(super) fn stored(&self, meta: &ResultMeta) -> StoredResult {
        StoredResult {
            key: names::result(&meta.task_id),
            text: meta.encode(),
        }
    }

    fn store_script(&self, meta: &ResultMeta) -> Invocation<'static> {
        let mut script = Invocation::new(&scripts::STORE_RESULT);
        script
            .key(names::result(&meta.task_id))
            .arg(meta.encode())
            .arg(self.result_seconds());
        script
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
        let mut script = self.store_script(meta);
        script.arg("replace");
        self.commands.script(&script).await
    }

    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        self.commands.script(&self.store_script(meta)).await
    }

    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError> {
        let raw: Option<Vec<u8>> = self.commands.command(commands::GET, names::result(id)).await?;
        Ok(raw.and_then(|raw| ResultMeta::decode(&raw)))
    }

    async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = pipe();
        for id in ids {
            pipeline.getrange(names::result(id), 0, STATUS_END);
        }
        let starts: Vec<Vec<u8>> = self.commands.pipeline(commands::STATUSES, &pipeline).await?;
        Ok(starts.iter().map(|start| Status::of_stored(start)).collect())
    }

    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError> {
        self.watch.final_result(id).await
    }

    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError> {
        let record = PartRecord::new(&delivery.tag, part, self.result_seconds());
        let is_held = |reply: &Vec<redis::Value>| reply.first() != Some(&redis::Value::Int(0));
        let script = |counter: &Counter| record.script(counter, false);
        let (reply, counter) = self.run_settling(delivery, script, is_held).await?;
        let mut reply = reply.into_iter();
        let state = reply.next();
        if let Some(redis::Value::Int(number @ 1..)) = reply.next() {
            let part = [Write::Part(record)];
            self.writer.remember(&counter, number.unsigned_abs(), part);
        }
        Ok(match state {
            Some(redis::Value::Int(0)) => ChordState::NotHeld,
            Some(redis::Value::Int(2)) => ChordState::Complete {
                group: reply.next().and_then(read),
                parts: reply.map(|part| read(part).unwrap_or_default()).collect(),
            },
            _ => ChordState::Waiting,
        })
    }
}

/// Parses the JSON in a reply; returns `None` for an empty string.
fn read(reply: redis::Value) -> Option<Value> {
    match reply {
        redis::Value::BulkString(text) if !text.is_empty() => serde_json::from_slice(&text)
            .inspect_err(|error| warn!(%error, "ignored stored data of a chord that is not valid JSON"))
            .ok(),
        _ => None,
    }
}
