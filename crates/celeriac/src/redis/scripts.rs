//! The steps that must not be split, as Lua scripts: Redis runs each to its end before anything else.
//!
//! They never decode a message. Redis' JSON library turns empty lists into objects and large integers into floats,
//! so messages are passed through as they are, and changed ones come from outside.

use redis::Script;

use super::chord::ChordScripts;

pub(super) struct Scripts {
    /// Takes messages from the lists in order and reserves them.
    ///
    /// KEYS: unacked_index, unacked, leases, then the lists. ARGV: how many, instance, first tag number, lease
    /// seconds, then per list the tail of its reservations. Answers two lists, which list each message
    /// came from (from 1) and the messages, and whether the lease was not there before. A message that is clearly no JSON is reserved as a JSON string, so
    /// that a Python worker which restores it can still read the reservation.
    pub receive: Script,
    /// Ends a delivery and publishes another message in its place, if the delivery is still held.
    ///
    /// KEYS: unacked_index, unacked, binding, list, result. ARGV: tag, binding's member, message, result or an empty
    /// string, result seconds.
    pub replace: Script,
    /// Gives a message back to the head of its list, if the delivery is still held.
    ///
    /// KEYS: unacked_index, unacked, list. ARGV: tag, message.
    pub restore: Script,
    /// The same for a delivery of somebody else, if nobody has renewed it meanwhile.
    ///
    /// KEYS: unacked_index, unacked, list, leases. ARGV: tag, message, an empty string, latest renewal that counts
    /// as expired, instance whose lease may have ended instead, or an empty string.
    pub restore_expired: Script,
    /// Moves a message to the dead-letter list, if the delivery is still held.
    ///
    /// KEYS: unacked_index, unacked, dead. ARGV: tag, dead letter, capacity. Answers how many of the oldest letters
    /// were dropped.
    pub bury: Script,
    /// The same for a delivery of somebody else, if nobody has renewed it meanwhile.
    ///
    /// KEYS: unacked_index, unacked, dead, leases. ARGV: tag, dead letter, capacity, and as for `restore_expired`.
    pub bury_expired: Script,
    /// Takes a letter off the dead-letter list, the oldest of equal ones, and puts a message into a queue in its
    /// place.
    ///
    /// KEYS: dead; to put something back also binding, list. ARGV: dead letter; likewise binding's member, message.
    pub take_dead: Script,
    /// Moves a periodic task's last tick on and publishes its message, if nobody else has meanwhile.
    ///
    /// KEYS: schedule; with a message also binding, list. ARGV: entry, the tick that must be the last or an empty
    /// string for none, the new last tick; with a message also binding's member, message.
    pub advance: Script,
    /// Stores and announces a state that is not final, unless a final one is there.
    ///
    /// KEYS: result. ARGV: state, seconds. Celery writes the status first, so the beginning of the text tells it.
    pub store_unless_ended: Script,
    pub chords: ChordScripts,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            receive: Script::new(RECEIVE),
            replace: Script::new(REPLACE),
            restore: Script::new(RESTORE),
            restore_expired: Script::new(&[IF_EXPIRED, RESTORE].concat()),
            bury: Script::new(BURY),
            bury_expired: Script::new(&[IF_EXPIRED, BURY].concat()),
            take_dead: Script::new(TAKE_DEAD),
            advance: Script::new(ADVANCE),
            store_unless_ended: Script::new(STORE_UNLESS_ENDED),
            chords: ChordScripts::new(),
        }
    }
}

const RECEIVE: &str = r"
local limit = tonumber(ARGV[1])
local sources, messages = {}, {}
for i = 4, #KEYS do
    local room = limit - #messages
    if room <= 0 then break end
    local taken = redis.call('RPOP', KEYS[i], room)
    if taken then
        for _, message in ipairs(taken) do
            sources[#sources + 1] = i - 3
            messages[#messages + 1] = message
        end
    end
end
if #messages == 0 then return {sources, messages, 0} end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local score = string.format('%d', math.ceil(now))
local index, reservations = {}, {}
local first = tonumber(ARGV[3])
for i, message in ipairs(messages) do
    local tag = ARGV[2] .. '/' .. string.format('%012d', first + i - 1)
    local body = message
    if string.sub(body, 1, 1) ~= '{' or string.sub(body, -1) ~= '}' then body = cjson.encode(body) end
    index[#index + 1] = score
    index[#index + 1] = tag
    reservations[#reservations + 1] = tag
    reservations[#reservations + 1] = '[' .. body .. ARGV[4 + sources[i]]
end
redis.call('ZADD', KEYS[1], unpack(index))
redis.call('HSET', KEYS[2], unpack(reservations))
local added = redis.call('ZADD', KEYS[3], string.format('%.6f', now + tonumber(ARGV[4])), ARGV[2])
return {sources, messages, added}
";

const REPLACE: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('LPUSH', KEYS[4], ARGV[3])
if ARGV[4] ~= '' then
    redis.call('SETEX', KEYS[5], ARGV[5], ARGV[4])
    redis.call('PUBLISH', KEYS[5], ARGV[4])
end
return 1
";

const RESTORE: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
";

const IF_EXPIRED: &str = r"
local renewed = redis.call('ZSCORE', KEYS[1], ARGV[1])
local expired = not renewed or tonumber(renewed) <= tonumber(ARGV[4])
if not expired and ARGV[5] ~= '' then
    local lease = redis.call('ZSCORE', KEYS[4], ARGV[5])
    local time = redis.call('TIME')
    expired = not lease or tonumber(lease) <= time[1] + time[2] / 1000000
end
if not expired then return -1 end
";

const BURY: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return -1 end
local length = redis.call('LPUSH', KEYS[3], ARGV[2])
local capacity = tonumber(ARGV[3])
if length <= capacity then return 0 end
redis.call('LTRIM', KEYS[3], 0, capacity - 1)
return length - capacity
";

const TAKE_DEAD: &str = r"
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
if KEYS[3] then
    redis.call('SADD', KEYS[2], ARGV[2])
    redis.call('LPUSH', KEYS[3], ARGV[3])
end
return 1
";

// The message first: a script that fails half-way is not undone, and a tick must not be past without its task.
const ADVANCE: &str = r"
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if KEYS[3] then
    redis.call('SADD', KEYS[2], ARGV[4])
    redis.call('LPUSH', KEYS[3], ARGV[5])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
";

const STORE_UNLESS_ENDED: &str = r#"
local status = string.match(redis.call('GET', KEYS[1]) or '', '^{"status": "(%u+)"')
if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then return 0 end
redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"#;
