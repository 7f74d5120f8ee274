//! [`ResultBackend`] on Redis, under Celery's keys.

use async_trait::async_trait;
use redis::pipe;
use serde_json::Value;

use super::{
    RedisBroker, chord_scripts::PartRecord, commands, counter::Counter, script::Invocation, scripts,
    written::Write,
};
use crate::{
    broker::{BrokerError, ChordPart, ChordState, Delivery, ResultBackend},
    compression::{decompressed_result, is_compressed},
    json,
    log::warn,
    result::{ResultMeta, Status},
    task_id::TaskId,
};

/// Offset of the last byte that is read to get the status of a stored result, which may be large.
const STATUS_END: isize = 63;

impl RedisBroker {
    fn store_script(&self, meta: &ResultMeta) -> Invocation<'static> {
        let mut script = Invocation::new(&scripts::STORE_RESULT);
        script
            .key(self.names().result(&meta.task_id))
            .arg(meta.encode_stored())
            .arg(self.result_seconds());
        script
    }

    /// Returns the lifetime of results in whole seconds.
    pub(super) fn result_seconds(&self) -> u64 {
        self.config.result_seconds()
    }
}

#[async_trait]
impl ResultBackend for RedisBroker {
    async fn store_result(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        if let Some(results) = &self.results {
            return results.store_result(meta).await;
        }
        if !meta.status.is_final() {
            return self.store_unless_ended(meta).await;
        }
        let mut script = self.store_script(meta);
        script.arg("replace");
        self.commands.script(&script).await
    }

    async fn store_unless_ended(&self, meta: &ResultMeta) -> Result<(), BrokerError> {
        if let Some(results) = &self.results {
            return results.store_unless_ended(meta).await;
        }
        self.commands.script(&self.store_script(meta)).await
    }

    async fn result(&self, id: &TaskId) -> Result<Option<ResultMeta>, BrokerError> {
        if let Some(results) = &self.results {
            return results.result(id).await;
        }
        let raw: Option<Vec<u8>> = self
            .commands
            .command(commands::GET, self.names().result(id))
            .await?;
        let read = raw.map(|raw| ResultMeta::read(&raw)).transpose();
        read.map_err(|cause| BrokerError::Unreadable { cause })
    }

    async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Option<Status>>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(results) = &self.results {
            return results.statuses(ids).await;
        }
        let mut pipeline = pipe();
        for id in ids {
            pipeline.getrange(self.names().result(id), 0, STATUS_END);
        }
        let starts: Vec<Vec<u8>> = self.commands.pipeline(commands::STATUSES, &pipeline).await?;
        let mut statuses = Vec::with_capacity(ids.len());
        for (id, start) in ids.iter().zip(&starts) {
            statuses.push(if is_compressed(start) {
                self.result(id).await?.map(|meta| meta.status)
            } else {
                Status::of_stored(start)
            });
        }
        Ok(statuses)
    }

    async fn group(&self, id: &str) -> Result<Option<Value>, BrokerError> {
        if let Some(results) = &self.results {
            return results.group(id).await;
        }
        let key = self.names().group(id, "");
        let raw: Option<Vec<u8>> = self.commands.command(commands::GET, key).await?;
        let unreadable = |cause: String| BrokerError::Unreadable { cause };
        raw.map(|raw| {
            let text = decompressed_result(&raw).map_err(unreadable)?;
            serde_json::from_slice(&text)
                .map_err(|error| unreadable(format!("the group is not JSON: {error}")))
        })
        .transpose()
    }

    async fn forget(&self, ids: &[TaskId]) -> Result<(), BrokerError> {
        if let Some(results) = &self.results {
            return results.forget(ids).await;
        }
        if ids.is_empty() {
            return Ok(());
        }
        let mut keys: Vec<String> = ids.iter().map(|id| self.names().result(id)).collect();
        keys.extend(ids.iter().map(|id| self.names().group(id, "")));
        self.commands.command(commands::DEL, keys).await
    }

    async fn watch(&self, id: &TaskId) -> Result<ResultMeta, BrokerError> {
        match &self.results {
            Some(results) => results.watch(id).await,
            None => self.watch.final_result(id).await,
        }
    }

    async fn chord_part(&self, delivery: &Delivery, part: &ChordPart) -> Result<ChordState, BrokerError> {
        let record = PartRecord::new(&delivery.tag, part, self.result_seconds());
        if let Some(results) = &self.results {
            if !self.is_held(delivery).await? {
                return Ok(ChordState::NotHeld);
            }
            let counter = results.writer.counter().await?;
            let reply = results
                .commands
                .script(&record.script(results.names(), &counter, true))
                .await?;
            return Ok(chord_state(reply).0);
        }
        let is_held = |reply: &Vec<redis::Value>| reply.first() != Some(&redis::Value::Int(0));
        let script = |counter: &Counter| record.script(self.names(), counter, false);
        let (reply, counter) = self.run_settling(delivery, script, is_held).await?;
        let (state, number) = chord_state(reply);
        if let Some(number) = number {
            let part = [Write::Part(record)];
            self.writer.remember(&counter, number, part);
        }
        Ok(state)
    }
}

/// Reads the reply of the script that records a part: the state of the chord, and the number of the write.
fn chord_state(reply: Vec<redis::Value>) -> (ChordState, Option<u64>) {
    let mut reply = reply.into_iter();
    let state = reply.next();
    let number = match reply.next() {
        Some(redis::Value::Int(number @ 1..)) => Some(number.unsigned_abs()),
        _ => None,
    };
    let state = match state {
        Some(redis::Value::Int(0)) => ChordState::NotHeld,
        Some(redis::Value::Int(2)) => ChordState::Complete {
            group: reply.next().and_then(read),
            parts: reply.map(|part| read(part).unwrap_or_default()).collect(),
        },
        _ => ChordState::Waiting,
    };
    (state, number)
}

/// Parses the JSON in a reply; returns `None` for an empty string.
fn read(reply: redis::Value) -> Option<Value> {
    match reply {
        redis::Value::BulkString(text) if !text.is_empty() => serde_json::from_slice(&json::exact(&text))
            .inspect_err(|error| warn!(%error, "ignored stored data of a chord that is not valid JSON"))
            .ok(),
        _ => None,
    }
}
