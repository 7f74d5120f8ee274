//! How often telemetry leaves the process where no variable says: as the specification has it for a collector, and often
//! enough to look at for a receiver nearby.

use super::Export;

/// Milliseconds between two exports.
pub(super) struct Pace {
    pub(super) spans: u64,
    pub(super) records: u64,
    pub(super) metrics: u64,
}

impl Pace {
    pub(super) fn of(export: Export) -> Self {
        match export {
            Export::Nearby(_) => Self {
                spans: 500,
                records: 500,
                metrics: 5_000,
            },
            Export::Always | Export::WhenConfigured | Export::Never => Self {
                spans: 5_000,
                records: 1_000,
                metrics: 60_000,
            },
        }
    }
}
