//! Default export intervals: those of the specification for a collector, shorter ones for a nearby receiver.

use crate::service::Export;

/// Default export intervals in milliseconds.
pub(super) struct Intervals {
    pub(super) spans: u64,
    pub(super) log_records: u64,
    pub(super) metrics: u64,
}

impl Intervals {
    pub(super) fn for_export(export: Export) -> Self {
        match export {
            Export::Nearby(_) => Self {
                spans: 500,
                log_records: 500,
                metrics: 5_000,
            },
            Export::Always | Export::WhenConfigured | Export::Never => Self {
                spans: 5_000,
                log_records: 1_000,
                metrics: 60_000,
            },
        }
    }
}
