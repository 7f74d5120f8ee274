//! Export of all three signals on one thread with its own runtime. Spans and log records wait in bounded
//! queues, measurements in the meters of the SDK; a loop per signal sends them. Recording never waits for
//! this thread, and its failures do not affect the recording threads.
//!
//! ```text
//! span ends    ─▶ redacted, encoded ─▶ Queue ─▶ BatchLoop ──┐
//! log record   ─▶ encoded ───────────▶ Queue ─▶ BatchLoop ──┼─▶ Exporter ─▶ collector or function
//! instruments ─────────▶ meters ─────────────▶ MetricLoop ──┘
//! ```

mod batches;
mod delivery;
mod exporter;
mod metrics;
mod self_metrics;
mod shutdown;
mod supervision;
#[cfg(test)]
mod testing;
mod thread;

pub(crate) use metrics::MetricExport;
pub use metrics::QueueMetricReader;
pub(crate) use self_metrics::{ExportCounts, observe_queue};
pub use thread::is_export_thread;
pub(crate) use thread::{ExportThread, QueuedExport, SignalExports};
