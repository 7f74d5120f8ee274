//! Exports all three signals on one thread with its own runtime. Spans and log records wait in bounded
//! queues, and measurements in the SDK's meters; one loop per signal exports them. Recording threads never
//! wait for this thread and are not affected by its failures.
//!
//! ```text
//! span ends    ─▶ redacted, encoded ─▶ Queue ─▶ BatchLoop ──┐
//! log record   ─▶ encoded ───────────▶ Queue ─▶ BatchLoop ──┼─▶ Exporter ─▶ collector or function
//! instruments ─────────▶ meters ─────────────▶ MetricLoop ──┘
//! ```

mod batches;
mod delivery;
mod exporter;
mod flush;
mod metrics;
mod pull;
mod self_metrics;
mod shutdown;
mod supervision;
#[cfg(test)]
mod testing;
mod thread;

pub(crate) use exporter::ExportTarget;
pub(crate) use flush::{Flushes, flush};
pub(crate) use metrics::MetricExport;
pub use metrics::QueueMetricReader;
pub use pull::PullReader;
pub(crate) use self_metrics::{CollectionTimes, observe_queue, observe_spans};
pub use thread::is_export_thread;
pub(crate) use thread::{ExportThread, QueuedExport, SignalExports};
