//! Lua scripts for the steps that must be atomic.
//!
//! The scripts never decode a message: Redis' JSON library turns empty lists into objects and large integers
//! into floats. Messages pass through the scripts unchanged; modified messages are passed in as arguments.

use super::script::scripts;

scripts! {
    /// Reserves postponed messages that are due and messages from the lists, in the order of the lists.
    ///
    /// KEYS: unacked_index, unacked, leases, writes, then the lists, then the postponed tags of each list.
    /// ARGV: maximum number of messages, instance, first tag number, lease seconds, identity of the server,
    /// bytes after which no more messages are taken, the time, the number of messages to pop at once, the maximum
    /// number including messages whose `eta` is at least the next argument (a time in Celery's format, or an empty
    /// string), then for each list the tail of its reservations. Returns the index of each message's list (from 1;
    /// negative for a postponed message, which is returned as its reservation), the messages, whether the lease was
    /// added, and the number of the write. A message that is clearly not JSON is reserved as a JSON string: a Python
    /// worker that restores it must be able to parse the reservation.
    RECEIVE = r#"
local limit, bytes, chunk = tonumber(ARGV[1]), tonumber(ARGV[6]), tonumber(ARGV[8])
local most, later_from = tonumber(ARGV[9]), ARGV[10]
local lists = (#KEYS - 4) / 2
local sources, messages = {}, {}
local any_later = redis.call('EXISTS', unpack(KEYS, 5 + lists)) > 0
for i = 1, lists do
    if any_later and #messages < limit and bytes > 0 then
        local later = KEYS[4 + lists + i]
        local due = redis.call('ZRANGE', later, '-inf', ARGV[7], 'BYSCORE', 'LIMIT', 0, limit - #messages)
        local taken = 0
        while taken < #due and bytes > 0 do
            taken = taken + 1
            local reservation = redis.call('HGET', KEYS[2], due[taken])
            if reservation then
                bytes = bytes - #reservation
                sources[#sources + 1] = -i
                messages[#messages + 1] = reservation
            end
        end
        if taken > 0 then
            redis.call('ZREM', later, unpack(due, 1, taken))
            redis.call('ZREM', KEYS[1], unpack(due, 1, taken))
            redis.call('HDEL', KEYS[2], unpack(due, 1, taken))
        end
    end
    while #messages < limit and bytes > 0 do
        local room = math.min(limit - #messages, chunk)
        local taken = redis.call('RPOP', KEYS[4 + i], room)
        if not taken then break end
        for j, message in ipairs(taken) do
            if bytes <= 0 then
                for k = #taken, j, -1 do redis.call('RPUSH', KEYS[4 + i], taken[k]) end
                break
            end
            bytes = bytes - #message
            sources[#sources + 1] = i
            messages[#messages + 1] = message
            if later_from ~= '' and limit < most then
                local _, last = string.find(message, '"eta": "', 1, true)
                if last and string.sub(message, last + 1, last + #later_from) >= later_from then
                    limit = limit + 1
                end
            end
        end
        if #taken < room then break end
    end
end
if #messages == 0 then return {sources, messages, 0, 0} end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local score = string.format('%d', math.ceil(now))
local index, reservations = {}, {}
local first = tonumber(ARGV[3])
for i, message in ipairs(messages) do
    local tag = ARGV[2] .. '/' .. string.format('%012d', first + i - 1)
    index[#index + 1] = score
    index[#index + 1] = tag
    reservations[#reservations + 1] = tag
    if sources[i] < 0 then
        reservations[#reservations + 1] = message
    else
        local body = message
        if string.byte(body) ~= 123 or string.byte(body, -1) ~= 125 then body = cjson.encode(body) end
        reservations[#reservations + 1] = '[' .. body .. ARGV[10 + sources[i]]
    end
end
redis.call('ZADD', KEYS[1], unpack(index))
redis.call('HSET', KEYS[2], unpack(reservations))
local added = redis.call('ZADD', KEYS[3], string.format('%.6f', now + tonumber(ARGV[4])), ARGV[2])
return {sources, messages, added, redis.call('HINCRBY', KEYS[4], ARGV[5], 1)}
"#;

    /// Returns a message to the head of its list, if the delivery is still held and, for another worker's
    /// delivery, the score by which the worker was judged to be dead is unchanged.
    ///
    /// KEYS: unacked_index, unacked, list; for another worker's delivery also the sorted set with the score.
    /// ARGV: tag, message; for another worker's delivery also an empty string, the member and its score.
    RESTORE = &[UNLESS_RENEWED, PUT_BACK, r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
put_back(KEYS[3], ARGV[2])
return 1
"].concat();

    /// Returns messages to the heads of their lists, if their deliveries are still held.
    ///
    /// KEYS: unacked_index, unacked, then for each delivery its list. ARGV: for each delivery its tag and its
    /// message. Returns whether each was held.
    RESTORE_BATCH = &[PUT_BACK, r"
local held = {}
for i = 3, #KEYS do
    local tag = ARGV[i * 2 - 5]
    redis.call('ZREM', KEYS[1], tag)
    held[i - 2] = redis.call('HDEL', KEYS[2], tag)
    if held[i - 2] == 1 then put_back(KEYS[i], ARGV[i * 2 - 4]) end
end
return held
"].concat();

    /// Moves a message to the dead-letter list, under the conditions of [`RESTORE`].
    ///
    /// KEYS: unacked_index, unacked, dead; for another worker's delivery also the last of [`RESTORE`]. ARGV:
    /// tag, dead letter, capacity; for another worker's delivery also the last two of [`RESTORE`]. Returns
    /// the number of old letters dropped, or -1 if nothing was moved.
    BURY = &[TRIM, UNLESS_RENEWED, r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return -1 end
redis.call('LPUSH', KEYS[3], ARGV[2])
return trim(KEYS[3], tonumber(ARGV[3]))
"].concat();

    /// Limits the length of the dead-letter list.
    ///
    /// KEYS: dead. ARGV: capacity. Returns the number of old letters dropped.
    TRIM_DEAD = &[TRIM, "return trim(KEYS[1], tonumber(ARGV[1]))"].concat();

    /// Publishes messages and extends a publication log, unless the server has lost batches of the log.
    ///
    /// KEYS: log, then for each list the binding and the list. ARGV: minimum length of the log, seconds until the
    /// log expires, then for each list the binding's member, the number of messages, and the messages. Returns
    /// whether the messages were published, and the length of the log.
    PUBLISH_LOGGED = r"
local length = tonumber(redis.call('GET', KEYS[1]) or '0')
if length < tonumber(ARGV[1]) then return {0, length} end
local next = 3
for i = 2, #KEYS, 2 do
    redis.call('SADD', KEYS[i], ARGV[next])
    local last = next + 1 + tonumber(ARGV[next + 1])
    for j = next + 2, last do redis.call('LPUSH', KEYS[i + 1], ARGV[j]) end
    next = last + 1
end
redis.call('SET', KEYS[1], string.format('%d', length + 1), 'EX', ARGV[2])
return {1, length + 1}
";

    /// Removes a letter from the dead-letter list (the oldest, if several are equal), and optionally
    /// publishes a message in its place and deletes the failure of its task, which would otherwise count as the
    /// end of a new run.
    ///
    /// KEYS: dead; with a message also binding, list, and optionally the result. ARGV: dead letter; with a message
    /// also binding's member, message.
    TAKE_DEAD = &[STORE, r"
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
if KEYS[3] then
    redis.call('SADD', KEYS[2], ARGV[2])
    redis.call('LPUSH', KEYS[3], ARGV[3])
end
if KEYS[4] and stored_status(KEYS[4]) == 'FAILURE' then redis.call('DEL', KEYS[4]) end
return 1
"].concat();

    /// Advances the last tick of a periodic task and publishes its message, unless another scheduler has
    /// already done so.
    ///
    /// KEYS: schedule; for each destination also binding, list. ARGV: entry, expected last tick or an empty string
    /// for none, new last tick; for each destination also binding's member, message.
    ADVANCE = &[SEND, r"
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
for i = 2, #KEYS, 2 do send(KEYS[i], KEYS[i + 1], ARGV[i + 2], ARGV[i + 3]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"].concat();

    /// Stores and publishes a result, unless a final one is already stored; with `replace`, only `SUCCESS` is
    /// kept.
    ///
    /// KEYS: result. ARGV: result, seconds, and optionally `replace`.
    STORE_RESULT = &[STORE, r"
if ARGV[3] then return store(KEYS[1], ARGV[2], ARGV[1]) end
return store_unless_final(KEYS[1], ARGV[2], ARGV[1])
"].concat();
}

/// Lua function that adds a message to a list and binds its queue, or publishes the message on a channel.
pub(super) const SEND: &str = r"
local function send(binding, list, member, message)
    if list == binding then
        redis.call('PUBLISH', member, message)
    else
        redis.call('SADD', binding, member)
        redis.call('LPUSH', list, message)
    end
end
";

/// Functions of scripts that store and publish results. A final result is kept: `SUCCESS` always, other final
/// results by `store_unless_final`. `store` replaces them, because a failed task may be sent again under its
/// id.
///
/// Celery writes the status first, so it is read from the beginning of the stored text. This crate compresses only
/// results of tasks that succeed, and names the method where Celery writes a content type, which has a slash.
pub(super) const STORE: &str = r#"
local function stored_status(key)
    local start = redis.call('GETRANGE', key, 0, 63)
    if string.match(start, '^%zcelery%-compressed%z%w+%z') then return 'SUCCESS' end
    return string.match(start, '^{"status": "(%u+)"')
end
local function write(key, seconds, text)
    redis.call('SETEX', key, seconds, text)
    redis.call('PUBLISH', key, text)
    return 1
end
local function store(key, seconds, text)
    if redis.call('SET', key, text, 'EX', seconds, 'NX') then
        redis.call('PUBLISH', key, text)
        return 1
    end
    if stored_status(key) == 'SUCCESS' then return 0 end
    return write(key, seconds, text)
end
local function store_unless_final(key, seconds, text)
    local status = stored_status(key)
    if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then return 0 end
    return write(key, seconds, text)
end
"#;

/// Function of scripts that returns messages to the head of their list.
///
/// The list of a worker for messages of a fan-out exchange expires a day later, because nobody deletes it if the worker
/// has died. These messages have a [mark](crate::message::mark_broadcast), whose text occurs nowhere else in JSON,
/// because quotes in strings are escaped.
pub(super) const PUT_BACK: &str = r#"
local function put_back(list, ...)
    redis.call('RPUSH', list, ...)
    if string.find((...), '"celeriac_broadcast": true', 1, true) then redis.call('EXPIRE', list, 86400) end
end
"#;

/// Function of scripts that drops the last elements of a list beyond its capacity and returns their number.
const TRIM: &str = r"
local function trim(list, capacity)
    local dropped = redis.call('LLEN', list) - capacity
    if dropped <= 0 then return 0 end
    redis.call('LTRIM', list, 0, capacity - 1)
    return dropped
end
";

/// Start of a script, which returns -1 if the score by which another worker was judged to be dead has
/// changed.
const UNLESS_RENEWED: &str = r"
if ARGV[4] then
    local score = redis.call('ZSCORE', KEYS[4], ARGV[4])
    if not score or tonumber(score) ~= tonumber(ARGV[5]) then return -1 end
end
";
