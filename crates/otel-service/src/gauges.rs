//! Instruments whose values come from callbacks. The callbacks run before the SDK collects metrics, not
//! during the collection: the SDK holds a lock while it collects, so a slow callback would block the creation
//! of instruments, and a panicking callback would poison the lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use otlp_recorder::LOG_TARGET;

use crate::recorder::{self, Instrumentation};

/// Values of an instrument, each with the attributes of its series.
type Values = Vec<(f64, Vec<KeyValue>)>;

/// All observed instruments of the process.
static OBSERVED: Mutex<Vec<Arc<Observed>>> = Mutex::new(Vec::new());

struct Observed {
    name: &'static str,
    read: Box<dyn Fn() -> Values + Send + Sync>,
    values: Mutex<Values>,
    panicked: AtomicBool,
}

/// Registers a gauge of the service. `read` is called whenever metrics are collected and returns the values.
///
/// `read` must be quick; if it blocks, it delays the export of all metrics, but nothing else. If it panics,
/// the gauge is omitted and the panic is logged once. Call this function after [`crate::init`]; earlier calls
/// have no effect.
pub fn observe_gauge(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
) {
    recorder::service().observe_gauge(name, unit, description, read);
}

/// Registers a counter of the service whose total `read` returns, as [`observe_gauge`] does.
///
/// The totals must never decrease.
pub fn observe_counter(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
) {
    let meter = recorder::service().meter();
    let counter = meter.f64_observable_counter(name).with_unit(unit);
    let counter = counter.with_description(description);
    counter.with_callback(observe(name, read)).build();
}

/// Registers a sum of the service whose value `read` returns, as [`observe_gauge`] does.
///
/// Unlike the values of a gauge, the values of several processes can be added up.
pub fn observe_up_down_counter(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
) {
    let meter = recorder::service().meter();
    let counter = meter.f64_observable_up_down_counter(name).with_unit(unit);
    let counter = counter.with_description(description);
    counter.with_callback(observe(name, read)).build();
}

impl Instrumentation {
    /// Registers a gauge of the library, as [`crate::observe_gauge`] does for the service.
    pub fn observe_gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
    ) {
        let meter = self.meter();
        let gauge = meter.f64_observable_gauge(name).with_unit(unit);
        let gauge = gauge.with_description(description);
        gauge.with_callback(observe(name, read)).build();
    }
}

/// Returns the callback that reports the values of `read`, which [`read_all`] calls.
fn observe(
    name: &'static str,
    read: impl Fn() -> Values + Send + Sync + 'static,
) -> impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static {
    let observed = Arc::new(Observed {
        name,
        read: Box::new(read),
        values: Mutex::default(),
        panicked: AtomicBool::new(false),
    });
    lock(&OBSERVED).push(Arc::clone(&observed));
    move |observer| {
        for (value, attributes) in lock(&observed.values).iter() {
            observer.observe(*value, attributes);
        }
    }
}

/// Reads all values, holding no lock while a callback runs.
pub(crate) fn read_all() {
    let all = lock(&OBSERVED).clone();
    for observed in all {
        let values = observed.read();
        *lock(&observed.values) = values;
    }
}

impl Observed {
    fn read(&self) -> Values {
        catch_unwind(AssertUnwindSafe(&self.read)).unwrap_or_else(|_| {
            if !self.panicked.swap(true, Ordering::AcqRel) {
                tracing::event!(
                    target: LOG_TARGET,
                    tracing::Level::ERROR,
                    telemetry.signal = "metrics",
                    telemetry.gauge = self.name,
                    "the callback of a gauge panicked; the gauge is not exported until its callback succeeds"
                );
            }
            Values::new()
        })
    }
}

/// Locks a mutex, ignoring poisoning: the data is consistent even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
