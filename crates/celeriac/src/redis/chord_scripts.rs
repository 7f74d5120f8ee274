//! Lua scripts that record the parts of chords, and acknowledge tasks before they start. Chord headers are
//! stored under the keys of Celery 5.7 (those of 5.6 and two more), so Python and Rust workers can complete a
//! header together.
//!
//! A part is recorded while its delivery is reserved, and replaces an earlier result of the same task. The
//! worker that completes the header claims the body (`.c`); then it publishes the body, deletes the header
//! and settles the delivery in one step. If the worker dies before that step, the part runs again, and the
//! claim is still its own or has expired.

use super::{
    counter::Counter,
    names::Names,
    script::{Invocation, scripts},
};
use crate::broker::{ChordPart, DeliveryTag};

/// Lifetime of the marker of an early acknowledgement; no task runs longer.
const ACKED_EARLY_SECONDS: u64 = 30 * 86_400;
/// Lifetime of a claim on a chord's body after its worker dies; as short as a lease.
const CLAIM_SECONDS: u64 = 10;

/// Record of a part of a chord's header, which can be written again if the server has lost it.
pub(super) struct PartRecord {
    tag: DeliveryTag,
    part: ChordPart,
    /// Encoded part.
    text: String,
    /// Time until the header expires, in seconds.
    seconds: u64,
}

impl PartRecord {
    pub(super) fn new(tag: &DeliveryTag, part: &ChordPart, seconds: u64) -> Self {
        Self {
            tag: tag.clone(),
            text: part.encode(),
            part: ChordPart {
                result: serde_json::Value::Null,
                ..part.clone()
            },
            seconds,
        }
    }

    /// Returns the size of the texts.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.part.group.len() + self.tag.as_str().len()
    }

    /// Returns the script that records the part if the delivery is held or, with `again`, even if it is not.
    pub(super) fn script(&self, names: &Names, counter: &Counter, again: bool) -> Invocation<'static> {
        let part = &self.part;
        let mut script = Invocation::new(&PART);
        script
            .key(&names.unacked)
            .key(&[".j", ".t", ".s", ".d", ".c", ""].map(|suffix| names.group(&part.group, suffix)))
            .key(names.acked_early(&self.tag))
            .key(&*counter.key)
            .arg(self.tag.as_str())
            .arg(&self.text)
            .arg(part.score())
            .arg(part.prefix())
            .arg(part.task_id.as_str())
            .arg(self.seconds)
            .arg(CLAIM_SECONDS)
            .arg(&*counter.server)
            .arg(if again { "again" } else { "" });
        script
    }
}

/// Returns the script that acknowledges a delivery before its task starts if the delivery is held or, with
/// `again`, even if it is not.
pub(super) fn begin(names: &Names, tag: &DeliveryTag, counter: &Counter, again: bool) -> Invocation<'static> {
    let mut script = Invocation::on_delivery(&BEGIN, names, tag);
    script
        .key(names.acked_early(tag))
        .key(&*counter.key)
        .arg(ACKED_EARLY_SECONDS)
        .arg(&*counter.server)
        .arg(if again { "again" } else { "" });
    script
}

scripts! {
    /// Records a part of a chord's header.
    ///
    /// KEYS: unacked, then .j, .t, .s, .d, .c and the key of the group itself, then acked-early, writes.
    /// ARGV: delivery tag, part, score, common prefix of the task's results, task id, seconds to keep,
    /// seconds of a claim, identity of the server, `again` or an empty string. Returns 0 (not held), 1 (parts
    /// are missing), or 2, then the number of the write, and for 2 the group and all parts.
    PART = r"
if ARGV[9] ~= 'again' and redis.call('HEXISTS', KEYS[1], ARGV[1]) + redis.call('EXISTS', KEYS[8]) == 0 then
    return {0, 0}
end
local number = redis.call('HINCRBY', KEYS[9], ARGV[8], 1)
local claim = redis.call('GET', KEYS[6])
if claim == 'done' then return {1, number} end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], ARGV[3])) do
    if string.sub(other, 1, #ARGV[4]) == ARGV[4] then redis.call('ZREM', KEYS[2], other) end
end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('SADD', KEYS[5], ARGV[5] .. ':' .. ARGV[3])
for i = 2, 5 do redis.call('EXPIRE', KEYS[i], ARGV[6]) end
local size = redis.call('GET', KEYS[4])
local added = redis.call('GET', KEYS[3]) or 0
if not size or redis.call('ZCARD', KEYS[2]) ~= tonumber(size) + tonumber(added) then return {1, number} end
if claim and claim ~= ARGV[5] then return {1, number} end
redis.call('SET', KEYS[6], ARGV[5], 'EX', ARGV[7])
local answer = {2, number, redis.call('GET', KEYS[7]) or ''}
for _, part in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do answer[#answer + 1] = part end
return answer
";

    /// Acknowledges a delivery before its task starts.
    ///
    /// KEYS: unacked_index, unacked, acked-early, writes. ARGV: delivery tag, seconds to keep, identity of
    /// the server, `again` or an empty string. Returns the number of the write, or -1 (not held).
    BEGIN = r"
redis.call('ZREM', KEYS[1], ARGV[1])
local held = redis.call('HDEL', KEYS[2], ARGV[1]) + redis.call('EXISTS', KEYS[3]) > 0
if not held and ARGV[4] ~= 'again' then return -1 end
redis.call('SETEX', KEYS[3], ARGV[2], '1')
return redis.call('HINCRBY', KEYS[4], ARGV[3], 1)
";
}
