//! Names and texts of the commands in telemetry. Texts have `?` instead of arguments. A command with a
//! variable number of arguments has a fixed text, so that the number of arguments does not create time
//! series.

use crate::observer::Command;

macro_rules! single {
    ($($name:ident $text:literal),* $(,)?) => {$(
        pub(super) const $name: Command = Command {
            name: stringify!($name),
            text: $text,
        };
    )*};
}

single! {
    BLMOVE "BLMOVE ? ? RIGHT RIGHT ?",
    EVALSHA "EVALSHA ? ?",
    GET "GET ?",
    HMGET "HMGET ? ?",
    LLEN "LLEN ?",
    LPUSH "LPUSH ? ?",
    LRANGE "LRANGE ? ? ?",
    MGET "MGET ?",
    PING "PING",
    PUBLISH "PUBLISH ? ?",
    RPOP "RPOP ? ?",
    SREM "SREM ? ?",
    TIME "TIME",
    ZCOUNT "ZCOUNT ? ? ?",
    ZMSCORE "ZMSCORE ? ?",
    ZRANGE "ZRANGE ? ? ?",
    ZRANGEBYSCORE "ZRANGEBYSCORE ? ? ? LIMIT ? ?",
    ZREM "ZREM ? ?",
    ZREMRANGEBYSCORE "ZREMRANGEBYSCORE ? ? ?",
    ZSCORE "ZSCORE ? ?",
}

pub(super) const ACK: Command = Command {
    name: "MULTI",
    text: "MULTI; ZREM ? ?; HDEL ? ?; EXEC",
};
pub(super) const ACK_WITH_RESULT: Command = Command {
    name: "MULTI",
    text: "MULTI; SETEX ? ? ?; PUBLISH ? ?; ZREM ? ?; HDEL ? ?; EXEC",
};
pub(super) const STORE: Command = Command {
    name: "MULTI",
    text: "MULTI; SETEX ? ? ?; PUBLISH ? ?; EXEC",
};
pub(super) const PUBLISH_TOGETHER: Command = Command {
    name: "MULTI",
    text: "MULTI; SETEX ? ? ?; SADD ? ?; LPUSH ? ?; EXEC",
};
pub(super) const BIND: Command = Command {
    name: "PIPELINE",
    text: "SADD ? ?; ZADD ? GT ? ?",
};
pub(super) const CLOSE_REPLIES: Command = Command {
    name: "PIPELINE",
    text: "SREM ? ?; DEL ?",
};
pub(super) const DEPTH: Command = Command {
    name: "PIPELINE",
    text: "LLEN ?; HLEN ?",
};
pub(super) const HEADS: Command = Command {
    name: "PIPELINE",
    text: "LINDEX ? ?",
};
pub(super) const LAST_TICKS: Command = Command {
    name: "PIPELINE",
    text: "TIME; HMGET ? ?",
};
pub(super) const RENEW: Command = Command {
    name: "PIPELINE",
    text: "ZADD ? ? ?; ZADD ? XX ? ?",
};
