//! Names and texts of the commands in telemetry. Texts have `?` instead of arguments. A command with a
//! variable number of arguments has one fixed text; otherwise each number would create a time series.

use crate::observer::Command;

/// Arguments of a command that has none.
pub(super) const NO_ARGS: Option<&str> = None;

macro_rules! single {
    ($($name:ident $text:literal),* $(,)?) => {$(
        pub(super) const $name: Command<'_> = Command::new(stringify!($name), $text);
    )*};
}

single! {
    BLMOVE "BLMOVE ? ? RIGHT RIGHT ?",
    DEL "DEL ?",
    EVALSHA "EVALSHA ? ?",
    GET "GET ?",
    HGETALL "HGETALL ?",
    LLEN "LLEN ?",
    LPUSH "LPUSH ? ?",
    LRANGE "LRANGE ? ? ?",
    MGET "MGET ?",
    PING "PING",
    PUBLISH "PUBLISH ? ?",
    RPOP "RPOP ? ?",
    SREM "SREM ? ?",
    TIME "TIME",
    ZRANGEBYSCORE "ZRANGEBYSCORE ? ? ? WITHSCORES LIMIT ? ?",
    ZREM "ZREM ? ?",
    ZREMRANGEBYSCORE "ZREMRANGEBYSCORE ? ? ?",
}

pub(super) const PUBLISH_TOGETHER: Command<'_> =
    Command::new("MULTI", "MULTI; SETEX ? ? ?; SADD ? ?; LPUSH ? ?; EXEC");
pub(super) const BINDINGS: Command<'_> = Command::new("PIPELINE", "SMEMBERS ?");
pub(super) const BIND_QUEUE: Command<'_> = Command::new("PIPELINE", "SADD ? ?; EXPIRE ? ?");
pub(super) const DELETE_QUEUE: Command<'_> = Command::new("PIPELINE", "SREM ? ?; DEL ?");
pub(super) const ENQUEUE: Command<'_> = Command::new("PIPELINE", "LPUSH ? ?; EXPIRE ? ?");
pub(super) const STORED_REVOKED: Command<'_> = Command::new("ZRANGE", "ZRANGE ? ? ? BYSCORE");
pub(super) const STORE_REVOKED: Command<'_> = Command::new(
    "PIPELINE",
    "ZADD ? ? ?; ZREMRANGEBYSCORE ? ? ?; ZREMRANGEBYRANK ? ? ?; EXPIRE ? ?",
);
pub(super) const BIND: Command<'_> = Command::new("PIPELINE", "SADD ? ?; ZADD ? GT ? ?");
pub(super) const CLOSE_REPLIES: Command<'_> = Command::new("PIPELINE", "SREM ? ?; DEL ?");
pub(super) const DEPTH: Command<'_> = Command::new("PIPELINE", "LLEN ?; HLEN ?");
pub(super) const HEADS: Command<'_> = Command::new("PIPELINE", "LINDEX ? ?");
pub(super) const KEPT: Command<'_> = Command::new("PIPELINE", "ZSCORE ? ?; HGET ? ?");
pub(super) const IS_HELD: Command<'_> = Command::new("PIPELINE", "HEXISTS ? ?; EXISTS ?");
pub(super) const PURGE: Command<'_> = Command::new("MULTI", "MULTI; LLEN ?; DEL ?; EXEC");
pub(super) const LAST_TICKS: Command<'_> = Command::new("PIPELINE", "TIME; HMGET ? ?");
pub(super) const LEASES: Command<'_> = Command::new("PIPELINE", "TIME; ZRANGE ? ? ? REV WITHSCORES");
pub(super) const POSTPONED: Command<'_> = Command::new("PIPELINE", "ZRANGE ? ? ? WITHSCORES");
pub(super) const STATUSES: Command<'_> = Command::new("PIPELINE", "GETRANGE ? ? ?");
