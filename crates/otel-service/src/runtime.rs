//! Metrics of the tokio runtime that need no unstable features. OpenTelemetry has no conventions for them;
//! this crate defines the names.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::metrics::observe_count;
use crate::names::{attribute, metric};
use crate::recorder::OWN;

/// Registers metrics of the runtime of `handle`: `tokio.runtime.workers`, `tokio.runtime.alive_tasks`,
/// `tokio.runtime.global_queue.depth` and, for each worker, `tokio.runtime.worker.busy_time` in seconds and
/// `tokio.runtime.worker.parks`.
///
/// Call it once, after [`crate::init`]. Only the first runtime is reported; later calls do nothing.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Runtime::new()?;
/// otel_service::observe_runtime(runtime.handle());
/// # Ok(())
/// # }
/// ```
pub fn observe_runtime(handle: &Handle) {
    static OBSERVED: AtomicBool = AtomicBool::new(false);
    if OBSERVED.swap(true, Ordering::AcqRel) {
        return;
    }
    let runtime = handle.metrics();
    let meter = OWN.meter();
    let count = |name, unit, description, read: fn(&RuntimeMetrics) -> usize| {
        let runtime = runtime.clone();
        observe_count(&meter, name, unit, description, move || {
            i64::try_from(read(&runtime)).ok()
        });
    };
    count(
        metric::TOKIO_RUNTIME_WORKERS,
        "{worker}",
        "Worker threads of the runtime.",
        RuntimeMetrics::num_workers,
    );
    count(
        metric::TOKIO_RUNTIME_ALIVE_TASKS,
        "{task}",
        "Tasks that were spawned and have not finished.",
        RuntimeMetrics::num_alive_tasks,
    );
    count(
        metric::TOKIO_RUNTIME_GLOBAL_QUEUE_DEPTH,
        "{task}",
        "Tasks in the global queue of the runtime.",
        RuntimeMetrics::global_queue_depth,
    );
    let workers = runtime.clone();
    meter
        .f64_observable_counter(metric::TOKIO_RUNTIME_WORKER_BUSY_TIME)
        .with_unit("s")
        .with_description("Time the worker spent running tasks.")
        .with_callback(move |observer| {
            each_worker(&workers, observer, |worker| {
                workers.worker_total_busy_duration(worker).as_secs_f64()
            });
        })
        .build();
    meter
        .u64_observable_counter(metric::TOKIO_RUNTIME_WORKER_PARKS)
        .with_unit("{park}")
        .with_description("Times the worker parked because no task was ready.")
        .with_callback(move |observer| {
            each_worker(&runtime, observer, |worker| runtime.worker_park_count(worker));
        })
        .build();
}

fn each_worker<T>(runtime: &RuntimeMetrics, observer: &dyn AsyncInstrument<T>, read: impl Fn(usize) -> T) {
    for worker in 0..runtime.num_workers() {
        let index = i64::try_from(worker).unwrap_or(i64::MAX);
        observer.observe(
            read(worker),
            &[KeyValue::new(attribute::TOKIO_WORKER_INDEX, index)],
        );
    }
}
