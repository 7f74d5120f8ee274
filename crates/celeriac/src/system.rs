//! What this crate takes from the machine it runs on: the time, random ids, the process id and the host's
//! name. Everything else gets them as values, so that it can be tested exactly.

use jiff::Timestamp;
use uuid::Uuid;

/// The wall-clock time, as message headers and results carry it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the wall clock"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A random id.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that makes random ids"
)]
pub(crate) fn random_id() -> Uuid {
    Uuid::new_v4()
}

/// The host's name, `localhost` where the system does not say.
pub(crate) fn hostname() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The name that a worker on this host has by default, `celery@<host>`, as Celery's own do.
#[must_use]
pub fn default_node_name() -> String {
    format!("celery@{}", hostname())
}

/// The load averages over 1, 5 and 15 minutes; zeros where the system does not say.
pub(crate) fn load_average() -> [f64; 3] {
    let mut averages = [0.0; 3];
    if let Ok(text) = std::fs::read_to_string("/proc/loadavg") {
        for (slot, word) in averages.iter_mut().zip(text.split_whitespace()) {
            *slot = word.parse().unwrap_or(0.0);
        }
    }
    averages
}
