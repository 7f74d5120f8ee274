//! Settles tasks with successors: chords, callbacks, the next task of a chain. Chord headers are stored under
//! the keys of Celery 5.7 (those of 5.6 and two more), so that Python and Rust workers can complete a header
//! together.
//!
//! A part is recorded while its delivery is reserved, and replaces an earlier result of the same task. The
//! worker that completes the header claims the body (`.c`); then it publishes the body, deletes the header
//! and settles the delivery in one step. If the worker dies before that step, the part runs again, and the
//! claim is still its own or has expired.

use redis::pipe;

use super::{RedisBroker, chord_scripts, commands, names, script::Invocation};
use crate::{
    broker::{BrokerError, Delivery, Publication, Settlement, SettlementStatus},
    json,
    result::ResultMeta,
    task_id::TaskId,
};

/// Suffixes of a header's keys, except for its size.
const PARTS: [&str; 4] = [".c", ".j", ".t", ".d"];

impl RedisBroker {
    pub(super) async fn publish_all(&self, publication: &Publication) -> Result<(), BrokerError> {
        let seconds = self.result_seconds();
        let mut pipeline = pipe();
        pipeline.atomic();
        for (group, size) in &publication.chord_sizes {
            let stale = PARTS.map(|suffix| names::group(group, suffix));
            pipeline.del(&stale).ignore();
            pipeline.set_ex(names::group(group, ".s"), size, seconds).ignore();
        }
        for (group, structure) in &publication.groups {
            let structure = json::to_string(structure);
            pipeline
                .set_ex(names::group(group, ""), structure, seconds)
                .ignore();
        }
        for message in &publication.messages {
            let queue = message.queue();
            let list = names::list(queue, message.properties.priority);
            pipeline
                .sadd(names::binding_key(queue), names::binding(queue))
                .ignore();
            pipeline.lpush(list, message.encode()).ignore();
        }
        self.commands
            .pipeline(commands::PUBLISH_TOGETHER, &pipeline)
            .await
    }

    pub(super) async fn settle_all(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        let mut script = self.settling(delivery, &settlement.chords);
        for meta in &settlement.results {
            add_result(&mut script, meta);
        }
        let publication = &settlement.publication;
        for (group, size) in &publication.chord_sizes {
            let keys = PARTS.map(|suffix| names::group(group, suffix));
            script.key(&keys).key(names::group(group, ".s"));
            script.arg("chord").arg(*size);
        }
        for (group, structure) in &publication.groups {
            script.key(names::group(group, ""));
            script.arg("group").arg(json::to_string(structure));
        }
        for message in &publication.messages {
            script.arg("message");
            script.message(message.queue(), message.properties.priority, message.encode());
        }
        let is_held = |reply: &i64| *reply != 0;
        Ok(match self.run_settling(delivery, &script, is_held).await? {
            0 => SettlementStatus::NotHeld,
            2 => SettlementStatus::ChordTaken,
            _ => SettlementStatus::Applied,
        })
    }

    /// Returns an invocation of [`chord_scripts::SETTLE`] without steps.
    pub(super) fn settling(&self, delivery: &Delivery, chords: &[(String, TaskId)]) -> Invocation<'static> {
        let mut script = Invocation::on_delivery(&chord_scripts::SETTLE, &delivery.tag);
        script
            .key(names::acked_early(&delivery.tag))
            .arg(chords.len())
            .arg(self.result_seconds());
        for (group, part) in chords {
            let keys = [".c", ".j", ".t", ".s", ".d"].map(|suffix| names::group(group, suffix));
            script.key(&keys).arg(part.as_str());
        }
        script
    }
}

/// Adds a step that stores and publishes a result.
pub(super) fn add_result(script: &mut Invocation<'_>, meta: &ResultMeta) {
    script.key(names::result(&meta.task_id));
    script.arg("result").arg(meta.encode());
}
