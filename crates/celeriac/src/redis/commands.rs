//! How commands appear in telemetry: their names, and their texts with `?` for every argument.

use crate::observer::Command;

pub(super) const LPUSH: Command = Command {
    name: "LPUSH",
    text: "LPUSH ? ?",
};
pub(super) const GET: Command = Command {
    name: "GET",
    text: "GET ?",
};
pub(super) const LRANGE: Command = Command {
    name: "LRANGE",
    text: "LRANGE ? ? ?",
};
pub(super) const LLEN: Command = Command {
    name: "LLEN",
    text: "LLEN ?",
};
pub(super) const EVALSHA: Command = Command {
    name: "EVALSHA",
    text: "EVALSHA ? ?",
};
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
