//! The export of all three signals: one thread, "telemetry", with a runtime of its own. What is recorded waits in bounded
//! queues and in the meters; a loop per signal takes it from there and sends it. Recording never waits for this thread, and
//! nothing that happens on it reaches whoever records.
//!
//! ```text
//! span ends    ─▶ masked, encoded ─▶ Queue ─▶ Batching ─┐
//! event logged ─▶ masked, encoded ─▶ Queue ─▶ Batching ─┼─▶ Outlet ─▶ collector or console
//! meters ──────────▶ Reader ─▶ masked, encoded by Metering ─┘
//! ```
//!
//! Spans and log records are encoded where they are made: what they consist of is in that processor's caches and was
//! allocated by that thread, so that encoding them elsewhere costs several times as much as doing it at once.

mod attributes;
mod batches;
mod delivery;
mod frame;
mod logs;
mod measures;
mod metrics;
mod outlet;
mod queue;
mod stop;
mod supervision;
#[cfg(test)]
mod testing;
mod thread;
mod tidy;
mod traces;
mod wire;

pub(crate) use attributes::{Attributes, Fixed};
pub(crate) use delivery::TARGET;
pub(crate) use frame::Batch;
#[cfg(test)]
pub(crate) use frame::Frame;
pub(crate) use logs::QueuedLogs;
pub(crate) use measures::{Exported, observe_queue};
pub(crate) use metrics::Reader;
pub(crate) use queue::Queue;
pub(crate) use thread::{ExportThread, Exports, Queued, Read};
pub(crate) use tidy::{Tidy, truncated};
pub(crate) use traces::{Ended, QueuedSpans, Recorded};
