//! Instruments that can be declared anywhere, also as statics, and come to life with [`crate::init`]. An instrument made
//! from the global meter before the provider is set stays dead for ever; these wait.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::metrics::Meter;
use opentelemetry::{KeyValue, global};

/// Boundaries of duration histograms in seconds, as the semantic conventions advise.
pub(crate) const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

const SCOPE: &str = "pressroom.telemetry";

static READY: AtomicBool = AtomicBool::new(false);

/// Says that the global meter provider is in place.
pub(crate) fn set_ready() {
    READY.store(true, Ordering::Release);
}

/// The meter of this process. Before [`crate::init`] it is one that measures nothing.
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
        READY
            .load(Ordering::Acquire)
            .then(|| self.0.get_or_init(|| make(&meter())))
    }
}

/// A histogram of seconds with the advised boundaries.
pub(crate) fn seconds(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
) -> opentelemetry::metrics::Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_unit("s")
        .with_description(description)
        .with_boundaries(SECONDS.to_vec())
        .build()
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
/// static LOGINS: telemetry::Counter =
///     telemetry::counter("auth.login.attempts", "{attempt}", "Logins tried.");
/// LOGINS.add(1, &[telemetry::KeyValue::new("status", "success")]);
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

/// A histogram of durations in seconds. Recording before [`crate::init`], or with metrics switched off, does nothing.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    description: &'static str,
    instrument: Instruments<opentelemetry::metrics::Histogram<f64>>,
}

/// Declares a histogram of seconds with the boundaries that the semantic conventions advise.
pub const fn histogram(name: &'static str, description: &'static str) -> Histogram {
    Histogram {
        name,
        description,
        instrument: Instruments::new(),
    }
}

impl Histogram {
    /// Records one duration.
    pub fn record(&self, duration: std::time::Duration, attributes: &[KeyValue]) {
        let instrument = self
            .instrument
            .get(|meter| seconds(meter, self.name, self.description));
        if let Some(instrument) = instrument {
            instrument.record(duration.as_secs_f64(), attributes);
        }
    }
}

/// Declares a gauge that is read when metrics are collected, on the exporter's thread: `read` must be quick and must not
/// block. Call it after [`crate::init`]; before, it does nothing.
pub fn observe_gauge(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
) {
    meter()
        .f64_observable_gauge(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            for (value, attributes) in read() {
                observer.observe(value, &attributes);
            }
        })
        .build();
}
