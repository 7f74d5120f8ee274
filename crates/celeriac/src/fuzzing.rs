//! What the fuzz targets need of the inside; compiled for them only.

use jiff::Timestamp;

use crate::{
    DeadLetter, Schedule,
    control::{command::Command, envelope},
    dead, message,
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
    dead::encode(queue, raw, "")
}

/// Whether a broadcast is a command for this worker; `None` when it is no command.
#[must_use]
pub fn command_is_for(raw: &[u8], node: &str) -> Option<bool> {
    let content = envelope::open(raw, envelope::LONGEST_BROADCAST).ok()?;
    let command: Command = serde_json::from_value(content.body).ok()?;
    Some(command.is_for(node))
}

#[must_use]
pub fn last_tick(schedule: &Schedule, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    schedule.last(after, until)
}
