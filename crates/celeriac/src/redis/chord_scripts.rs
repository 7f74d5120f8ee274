//! Lua scripts that record the parts of chords, and settle tasks together with their successors: chords,
//! callbacks, the next task of a chain. Chord headers are stored under the keys of Celery 5.7 (those of 5.6
//! and two more), so Python and Rust workers can complete a header together.
//!
//! A part is recorded while its delivery is reserved, and replaces an earlier result of the same task. The
//! worker that completes the header claims the body (`.c`); then it publishes the body, deletes the header
//! and settles the delivery in one step. If the worker dies before that step, the part runs again, and the
//! claim is still its own or has expired.

use super::{
    names,
    script::{Invocation, scripts},
    scripts::STORE,
};
use crate::{broker::DeliveryTag, result::ResultMeta, task_id::TaskId};

/// Suffixes of the keys that a header with the same id may have left behind.
pub(super) const STALE: [&str; 4] = [".c", ".j", ".t", ".d"];

/// Returns an invocation of [`SETTLE`] without steps. Results are kept for `seconds`.
pub(super) fn settle(tag: &DeliveryTag, chords: &[(String, TaskId)], seconds: u64) -> Invocation<'static> {
    let mut script = Invocation::on_delivery(&SETTLE, tag);
    script.key(names::acked_early(tag)).arg(chords.len()).arg(seconds);
    for (group, part) in chords {
        let keys = [".c", ".j", ".t", ".s", ".d"].map(|suffix| names::group(group, suffix));
        script.key(&keys).arg(part.as_str());
    }
    script
}

/// Adds a step to [`SETTLE`] that stores and publishes a result: of the settled task (`own`), or of a task that
/// can no longer run.
pub(super) fn add_result(script: &mut Invocation<'_>, meta: &ResultMeta, own: bool) {
    script.key(names::result(&meta.task_id));
    let kind = if own && meta.status.is_final() {
        "result"
    } else {
        "unless final"
    };
    script.arg(kind).arg(meta.encode());
}

scripts! {
    /// Records a part of a chord's header.
    ///
    /// KEYS: unacked, then .j, .t, .s, .d, .c and the key of the group itself, then acked-early. ARGV:
    /// delivery tag, part, score, common prefix of the task's results, task id, seconds to keep, seconds of a
    /// claim. Returns 0 (not held), 1 (parts are missing), or 2 with the group and all parts.
    PART = r"
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

    /// Settles a delivery and applies the steps, if the delivery is still held.
    ///
    /// KEYS: unacked_index, unacked, acked-early, then for each chord .c, .j, .t, .s, .d, then the keys of
    /// the steps. ARGV: delivery tag, number of chords, seconds to keep, then the claims, then for each step
    /// its kind and arguments. Returns 0 (not held), 1 (applied), or 2 (a claim is lost).
    SETTLE = &[STORE, r"
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
        if ARGV[arg] == 'result' then
            store(KEYS[key], ARGV[3], ARGV[arg + 1])
        elseif ARGV[arg] == 'unless final' then
            store_unless_final(KEYS[key], ARGV[3], ARGV[arg + 1])
        else
            redis.call('SETEX', KEYS[key], ARGV[3], ARGV[arg + 1])
        end
        key, arg = key + 1, arg + 2
    end
end
return 1
"].concat();

    /// Acknowledges a delivery before its task starts.
    ///
    /// KEYS: unacked_index, unacked, acked-early. ARGV: delivery tag, seconds to keep. Returns whether it is
    /// held.
    BEGIN = r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return redis.call('EXISTS', KEYS[3]) end
redis.call('SETEX', KEYS[3], ARGV[2], '1')
return 1
";
}
