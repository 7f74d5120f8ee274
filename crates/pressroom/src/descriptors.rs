//! The limit on open file descriptors, which bounds the number of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything except clients: databases, Redis, files and exporters.
const OTHER: u64 = 64;

/// Raises the soft limit to the hard limit, and returns the number of descriptors for clients, at least 1.
pub fn for_clients() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            telemetry::warn!(%error, "cannot raise the limit on open files to its maximum");
            limit.current
        }
    };
    let clients = current.unwrap_or(u64::MAX).saturating_sub(OTHER).max(1);
    usize::try_from(clients).unwrap_or(usize::MAX)
}
