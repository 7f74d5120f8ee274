//! Settles tasks with successors: chords, callbacks, the next task of a chain. Chord headers are stored under
//! the keys of Celery 5.7 (those of 5.6 and two more), so that Python and Rust workers can complete a header
//! together.
//!
//! A part is recorded while its delivery is reserved, and replaces an earlier result of the same task. The
//! worker that completes the header claims the body (`.c`); then it publishes the body, deletes the header
//! and settles the delivery in one step. If the worker dies before that step, the part runs again, and its
//! claim still belongs to it or has expired.

use redis::{Pipeline, pipe};
use serde_json::Value;

use super::{RedisBroker, chord_scripts, commands, names};
use crate::{
    broker::{BrokerError, ChordPart, ChordState, Delivery, Publication, Settlement, SettlementStatus},
    json,
    log::warn,
};

/// Lifetime of a claim on a body after its worker dies; shorter than any lease.
const CLAIM_SECONDS: u64 = 10;

/// Lifetime of the marker of an early acknowledgement; no task runs longer.
const ACKED_EARLY_SECONDS: u64 = 30 * 86_400;

/// Suffixes of a header's keys, except for its size.
const PARTS: [&str; 4] = [".c", ".j", ".t", ".d"];

impl RedisBroker {
    pub(super) async fn publish_all(&self, publication: &Publication) -> Result<(), BrokerError> {
        let mut pipeline = pipe();
        pipeline.atomic();
        for (group, size) in &publication.chord_sizes {
            let stale = PARTS.map(|suffix| names::group(group, suffix));
            pipeline.cmd("DEL").arg(&stale).ignore();
            self.keep(&mut pipeline, names::group(group, ".s"), &size.to_string());
        }
        for (group, structure) in &publication.groups {
            self.keep(
                &mut pipeline,
                names::group(group, ""),
                &json::to_string(structure),
            );
        }
        for message in &publication.messages {
            let queue = message.queue();
            pipeline
                .cmd("SADD")
                .arg(names::binding_key(queue))
                .arg(names::binding(queue))
                .ignore();
            let list = names::list(queue, message.properties.priority);
            pipeline.cmd("LPUSH").arg(list).arg(message.encode()).ignore();
        }
        self.commands
            .pipeline(commands::PUBLISH_TOGETHER, &pipeline)
            .await
    }

    fn keep(&self, pipeline: &mut Pipeline, key: String, text: &str) {
        let seconds = self.result_seconds();
        pipeline.cmd("SETEX").arg(key).arg(seconds).arg(text).ignore();
    }

    pub(super) async fn record_part(
        &self,
        delivery: &Delivery,
        part: &ChordPart,
    ) -> Result<ChordState, BrokerError> {
        let mut script = chord_scripts::PART.prepare_invoke();
        script.key(names::UNACKED);
        for suffix in [".j", ".t", ".s", ".d", ".c", ""] {
            script.key(names::group(&part.group, suffix));
        }
        script
            .key(names::acked_early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(part.encode())
            .arg(part.score())
            .arg(part.prefix())
            .arg(part.task_id.as_str())
            .arg(self.result_seconds())
            .arg(CLAIM_SECONDS);
        let is_held = |answer: &Vec<redis::Value>| answer.first() != Some(&redis::Value::Int(0));
        let mut answer = self.run_settling(delivery, &script, is_held).await?.into_iter();
        Ok(match answer.next() {
            Some(redis::Value::Int(0)) => ChordState::NotHeld,
            Some(redis::Value::Int(2)) => ChordState::Complete {
                group: answer.next().and_then(read),
                parts: answer.map(|part| read(part).unwrap_or_default()).collect(),
            },
            _ => ChordState::Waiting,
        })
    }

    pub(super) async fn begin_early(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let mut script = chord_scripts::BEGIN.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::acked_early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(ACKED_EARLY_SECONDS);
        self.run_settling(delivery, &script, |held| *held).await
    }

    pub(super) async fn settle_all(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        let mut script = chord_scripts::SETTLE.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::acked_early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(settlement.chords.len())
            .arg(self.result_seconds());
        for (group, part) in &settlement.chords {
            for suffix in [".c", ".j", ".t", ".s", ".d"] {
                script.key(names::group(group, suffix));
            }
            script.arg(part.as_str());
        }
        for meta in &settlement.results {
            script.key(names::result(&meta.task_id));
            script.arg("result").arg(meta.encode());
        }
        let publication = &settlement.publication;
        for (group, size) in &publication.chord_sizes {
            for suffix in PARTS.iter().chain(&[".s"]) {
                script.key(names::group(group, suffix));
            }
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
        let answer: i64 = self
            .run_settling(delivery, &script, |answer| *answer != 0)
            .await?;
        Ok(match answer {
            0 => SettlementStatus::NotHeld,
            2 => SettlementStatus::ChordTaken,
            _ => SettlementStatus::Applied,
        })
    }
}

/// Parses the JSON text in a reply; an empty text results in `None`.
fn read(answer: redis::Value) -> Option<Value> {
    let redis::Value::BulkString(text) = answer else {
        return None;
    };
    if text.is_empty() {
        return None;
    }
    let value = serde_json::from_slice(&text).ok();
    if value.is_none() {
        warn!(
            bytes = text.len(),
            "ignored stored data of a chord that is not valid JSON"
        );
    }
    value
}
