//! Instruments that can be declared anywhere, also as statics, and come to life with [`crate::init`]. An instrument made
//! from the global meter before the provider is set stays dead for ever; these wait.

mod durations;
mod table;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::metrics::Meter;
use opentelemetry::{KeyValue, global};

use crate::SCOPE;
pub use crate::gauges::observe_gauge;
pub(crate) use durations::{Durations, SERIES_LIMIT, Series};
pub use durations::{Histogram, histogram};
pub(crate) use table::Table;

/// Boundaries of the histograms of HTTP requests and messages in seconds, as the semantic conventions advise.
pub(crate) const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Those of database operations.
pub(crate) const DATABASE_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

static READY: AtomicBool = AtomicBool::new(false);

/// Says that the global meter provider is in place.
pub(crate) fn set_ready() {
    READY.store(true, Ordering::Release);
}

/// Whether there is anything to measure for.
pub(crate) fn is_ready() -> bool {
    READY.load(Ordering::Acquire)
}

/// The meter of this process, for instruments that this crate has no function for. Before [`crate::init`] it is one that
/// measures nothing. Histograms are better declared with [`histogram`]: those made with the meter have no exemplars.
pub fn meter() -> Meter {
    global::meter(SCOPE)
}

/// A set of instruments made once, and not before the provider is there.
#[derive(Debug)]
pub(crate) struct Instruments<T>(OnceLock<T>);

impl<T> Instruments<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(crate) fn get(&self, make: impl FnOnce(&Meter) -> T) -> Option<&T> {
        if let Some(made) = self.0.get() {
            return Some(made);
        }
        is_ready().then(|| self.0.get_or_init(|| make(&meter())))
    }
}

/// A counter. Counting before [`crate::init`], or with metrics switched off, does nothing.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    instrument: Instruments<opentelemetry::metrics::Counter<u64>>,
}

/// Declares a counter; `unit` is in UCUM, as `{attempt}`.
///
/// ```
/// static LOGINS: otel_service::Counter =
///     otel_service::counter("auth.login.attempts", "{attempt}", "Logins tried.");
/// LOGINS.add(1, &[otel_service::KeyValue::new("status", "success")]);
/// ```
pub const fn counter(name: &'static str, unit: &'static str, description: &'static str) -> Counter {
    Counter {
        name,
        unit,
        description,
        instrument: Instruments::new(),
    }
}

impl Counter {
    /// Adds `count`. The attributes must be few and of bounded variety.
    pub fn add(&self, count: u64, attributes: &[KeyValue]) {
        let instrument = self.instrument.get(|meter| {
            meter
                .u64_counter(self.name)
                .with_unit(self.unit)
                .with_description(self.description)
                .build()
        });
        if let Some(instrument) = instrument {
            instrument.add(count, attributes);
        }
    }
}
