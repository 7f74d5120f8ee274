//! Gauges whose values the service has ready when asked. They are read before the SDK collects and not by it: it holds a
//! lock meanwhile, which a reading that is slow would keep from whoever makes an instrument, and one that panics would
//! leave unusable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;

use crate::export::TARGET;
use crate::metrics::meter;

/// A gauge's values, each with the attributes of its series.
type Values = Vec<(f64, Vec<KeyValue>)>;

/// All gauges of the process.
static GAUGES: Mutex<Vec<Arc<Gauge>>> = Mutex::new(Vec::new());

struct Gauge {
    name: &'static str,
    read: Box<dyn Fn() -> Values + Send + Sync>,
    values: Mutex<Values>,
    panicked: AtomicBool,
}

/// Declares a gauge that is read when metrics are collected, on a thread of the exporter's: `read` must be quick. One that
/// hangs holds up the metrics of the process and nothing else; one that panics is left out and logged once. Call it
/// after [`crate::init`]; before, it does nothing.
pub fn observe_gauge(
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
    meter()
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

/// Reads all gauges. Whatever a reading does, no lock is held meanwhile.
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
                tracing::error!(
                    target: TARGET,
                    signal = "metrics",
                    gauge = self.name,
                    "the reading of a gauge panicked; it is left out when it does"
                );
            }
            Values::new()
        })
    }
}

/// What is behind these locks is whole whatever happened.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
