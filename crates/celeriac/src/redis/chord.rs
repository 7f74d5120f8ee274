//! Ends of tasks that something follows: chords, callbacks, the next task of a chain. Chord headers lie under the
//! keys of Celery 5.7, which are those of 5.6 and two more, so that Python and Rust workers complete them together.
//!
//! A part is recorded while its delivery is held, in the place of an earlier result of the same task. Whoever
//! completes the header claims the body (`.c`), publishes it, clears the header and ends the delivery in one step.
//! If it dies before that, its part runs again and finds the claim to be its own, or ended.

use redis::{Pipeline, Script, pipe};
use serde_json::Value;

use super::{RedisBroker, commands, names};
use crate::{
    backend::{ChordPart, ChordState},
    broker::{BrokerError, Delivery, Publication, Settled, Settlement},
    json,
    log::warn,
};

/// How long a claim on a body is good for, when whoever has it dies. Shorter than any lease.
const CLAIM_SECONDS: u64 = 10;

pub(super) struct ChordScripts {
    /// Records a part.
    ///
    /// KEYS: unacked, then of the group .j, .t, .s, .d, .c and the group itself, then early. ARGV: delivery tag, part, score,
    /// beginning of every result of the task, task id, seconds to keep, seconds of a claim. Answers 0 (not held), 1
    /// (parts are missing), or 2 with the group and all parts.
    part: Script,
    /// Ends a delivery with all that follows, if it is still held.
    ///
    /// KEYS: unacked_index, unacked, early, then per chord .c, .j, .t, .s, .d, then the keys of the steps. ARGV: delivery tag,
    /// number of chords, seconds to keep, then the claims, then per step its kind and arguments. Answers 0 (not held),
    /// 1 (done), or 2 (a claim is lost).
    settle: Script,
    /// Acknowledges a delivery before its task begins.
    ///
    /// KEYS: unacked_index, unacked, early. ARGV: delivery tag, seconds to keep. Answers whether it is held.
    begin: Script,
}

impl ChordScripts {
    pub fn new() -> Self {
        Self {
            part: Script::new(PART),
            settle: Script::new(SETTLE),
            begin: Script::new(BEGIN),
        }
    }
}

const PART: &str = r"
if redis.call('HEXISTS', KEYS[1], ARGV[1]) + redis.call('EXISTS', KEYS[8]) == 0 then return {0} end
local claim = redis.call('GET', KEYS[6])
if claim == 'done' then return {1} end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], ARGV[3])) do
    if string.sub(other, 1, #ARGV[4]) == ARGV[4] then redis.call('ZREM', KEYS[2], other) end
end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('SADD', KEYS[5], ARGV[5] .. ':' .. ARGV[3])
for i = 2, 5 do redis.call('EXPIRE', KEYS[i], ARGV[6]) end
local size = redis.call('GET', KEYS[4])
local added = redis.call('GET', KEYS[3]) or 0
if not size or redis.call('ZCARD', KEYS[2]) ~= tonumber(size) + tonumber(added) then return {1} end
if claim and claim ~= ARGV[5] then return {1} end
redis.call('SET', KEYS[6], ARGV[5], 'EX', ARGV[7])
local answer = {2, redis.call('GET', KEYS[7]) or ''}
for _, part in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do answer[#answer + 1] = part end
return answer
";

const SETTLE: &str = r"
if redis.call('HEXISTS', KEYS[2], ARGV[1]) + redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local chords = tonumber(ARGV[2])
for i = 1, chords do
    local claim = redis.call('GET', KEYS[i * 5 - 1])
    if claim and claim ~= ARGV[i + 3] then return 2 end
    if not claim and redis.call('EXISTS', KEYS[i * 5 + 2]) == 0 then return 2 end
end
for i = 1, chords do
    local first = i * 5 - 1
    redis.call('DEL', KEYS[first + 1], KEYS[first + 2], KEYS[first + 3], KEYS[first + 4])
    redis.call('SET', KEYS[first], 'done', 'EX', ARGV[3])
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
local key, arg = 4 + chords * 5, 4 + chords
while ARGV[arg] do
    if ARGV[arg] == 'message' then
        redis.call('SADD', KEYS[key], ARGV[arg + 1])
        redis.call('LPUSH', KEYS[key + 1], ARGV[arg + 2])
        key, arg = key + 2, arg + 3
    elseif ARGV[arg] == 'chord' then
        redis.call('DEL', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3])
        redis.call('SETEX', KEYS[key + 4], ARGV[3], ARGV[arg + 1])
        key, arg = key + 5, arg + 2
    else
        redis.call('SETEX', KEYS[key], ARGV[3], ARGV[arg + 1])
        if ARGV[arg] == 'result' then redis.call('PUBLISH', KEYS[key], ARGV[arg + 1]) end
        key, arg = key + 1, arg + 2
    end
end
return 1
";

const BEGIN: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return redis.call('EXISTS', KEYS[3]) end
redis.call('SETEX', KEYS[3], ARGV[2], '1')
return 1
";

/// How long it is known that a delivery was acknowledged early: no task runs for longer.
const EARLY_SECONDS: u64 = 30 * 86_400;

/// The keys of a header without its size.
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
        let mut script = self.scripts.chords.part.prepare_invoke();
        script.key(names::UNACKED);
        for suffix in [".j", ".t", ".s", ".d", ".c", ""] {
            script.key(names::group(&part.group, suffix));
        }
        script
            .key(names::early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(part.encode())
            .arg(part.score())
            .arg(part.prefix())
            .arg(&part.task_id)
            .arg(self.result_seconds())
            .arg(CLAIM_SECONDS);
        let mut answer: Vec<redis::Value> = self.commands.script(&script).await?;
        if answer.first() == Some(&redis::Value::Int(0)) && self.regained(delivery).await? {
            answer = self.commands.script(&script).await?;
        }
        let mut answer = answer.into_iter();
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
        let mut script = self.scripts.chords.begin.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(EARLY_SECONDS);
        let held: bool = self.commands.script(&script).await?;
        if !held && self.regained(delivery).await? {
            return self.commands.script(&script).await;
        }
        Ok(held)
    }

    pub(super) async fn settle_all(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<Settled, BrokerError> {
        let mut script = self.scripts.chords.settle.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::early(delivery.tag.as_str()))
            .arg(delivery.tag.as_str())
            .arg(settlement.chords.len())
            .arg(self.result_seconds());
        for (group, part) in &settlement.chords {
            for suffix in [".c", ".j", ".t", ".s", ".d"] {
                script.key(names::group(group, suffix));
            }
            script.arg(part);
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
            let queue = message.queue();
            script
                .key(names::binding_key(queue))
                .key(names::list(queue, message.properties.priority));
            script
                .arg("message")
                .arg(names::binding(queue))
                .arg(message.encode());
        }
        let mut answer: i64 = self.commands.script(&script).await?;
        if answer == 0 && self.regained(delivery).await? {
            answer = self.commands.script(&script).await?;
        }
        Ok(match answer {
            0 => Settled::NotHeld,
            2 => Settled::ChordTaken,
            _ => Settled::Done,
        })
    }
}

/// A JSON text from an answer; nothing for an empty one.
fn read(answer: redis::Value) -> Option<Value> {
    let redis::Value::BulkString(text) = answer else {
        return None;
    };
    if text.is_empty() {
        return None;
    }
    let value = serde_json::from_slice(&text).ok();
    if value.is_none() {
        warn!(bytes = text.len(), "what is kept of a chord cannot be read");
    }
    value
}
