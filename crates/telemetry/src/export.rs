//! The export of all three signals: one thread, "telemetry", with a runtime of its own. What is recorded waits in bounded
//! queues and in the meters; a loop per signal takes it from there, tidies and encodes it and sends it. Recording never
//! waits for this thread, and nothing that happens on it reaches whoever records.
//!
//! ```text
//! span ends   ─▶ Queue<SpanData> ─▶ Batching ─┐
//! event logged ─▶ Queue<LogEntry> ─▶ Batching ─┼─▶ Tidy ─▶ Outlet ─▶ collector or console
//! meters       ─▶ Reader ─────────▶ Metering ─┘
//! ```

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

pub(crate) use delivery::TARGET;
pub(crate) use logs::{LogEntry, QueuedLogs};
pub(crate) use measures::{Exported, observe_queue};
pub(crate) use metrics::Reader;
pub(crate) use queue::Queue;
pub(crate) use thread::{ExportThread, Exports, Queued, Read};
pub(crate) use tidy::{Tidy, truncated};
pub(crate) use traces::QueuedSpans;
