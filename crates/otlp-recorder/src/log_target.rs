//! The target of this crate's own log events.

/// Target of the log events about the export. A subscriber that exports log records must leave them out, or a failing
/// export would feed itself.
pub const LOG_TARGET: &str = "otlp_recorder";
