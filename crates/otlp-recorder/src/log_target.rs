//! The target of this crate's own log events.

/// Target of the log events about the export.
///
/// A subscriber that exports log records must skip them; otherwise a failing export would cause further
/// exports.
pub const LOG_TARGET: &str = "otlp_recorder";
