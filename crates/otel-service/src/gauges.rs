//! Gauges whose values come from callbacks. The callbacks run before the SDK collects metrics, not
//! during the collection: the SDK holds a lock while it collects, so a slow callback would block the creation
//! of instruments, and a panicking callback would poison the lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use otlp_recorder::LOG_TARGET;

use crate::recorder::{self, Instrumentation};

/// Values of a gauge, each with the attributes of its series.
type Values = Vec<(f64, Vec<KeyValue>)>;

/// All gauges of the process.
static GAUGES: Mutex<Vec<Arc<Gauge>>> = Mutex::new(Vec::new());

struct Gauge {
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

impl Instrumentation {
    /// Registers a gauge of the library, as [`crate::observe_gauge`] does for the service.
    pub fn observe_gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn() -> Vec<(f64, Vec<KeyValue>)> + Send + Sync + 'static,
    ) {
        let gauge = Arc::new(Gauge {
            name,
            read: Box::new(read),
            values: Mutex::default(),
            panicked: AtomicBool::new(false),
        });
        lock(&GAUGES).push(Arc::clone(&gauge));
        self.meter()
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                for (value, attributes) in lock(&gauge.values).iter() {
                    observer.observe(*value, attributes);
                }
            })
            .build();
    }
}

/// Reads all gauges, holding no lock while a callback runs.
pub(crate) fn read_all() {
    let gauges = lock(&GAUGES).clone();
    for gauge in gauges {
        let values = gauge.read();
        *lock(&gauge.values) = values;
    }
}

impl Gauge {
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
