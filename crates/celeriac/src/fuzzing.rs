//! Access to internals for the fuzz targets; compiled only for them.

use jiff::Timestamp;

use crate::{
    DeadLetter, Schedule,
    control::{command::Command, envelope},
    message,
};

#[must_use]
pub fn mark_redelivered(raw: &[u8]) -> Option<String> {
    message::mark_redelivered(raw)
}

#[must_use]
pub fn as_never_delivered(raw: &[u8]) -> Option<String> {
    message::as_never_delivered(raw)
}

#[must_use]
pub fn dead_letter(entry: &[u8]) -> DeadLetter {
    DeadLetter::decode(entry.to_vec())
}

#[must_use]
pub fn buried(queue: &str, raw: &[u8]) -> String {
    DeadLetter::encode(queue, raw, "")
}

/// Returns whether a broadcast is a command for the worker `node`, or `None` if it is not a command.
#[must_use]
pub fn command_is_for(raw: &[u8], node: &str) -> Option<bool> {
    let content = envelope::decode(raw, envelope::MAX_BROADCAST_SIZE).ok()?;
    let command: Command = serde_json::from_value(content.body).ok()?;
    Some(command.is_for(node))
}

#[must_use]
pub fn last_tick(schedule: &Schedule, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    schedule.last(after, until)
}
