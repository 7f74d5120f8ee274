//! Metrics of the tokio runtime that need no unstable features. OpenTelemetry has no conventions for them;
//! this crate defines the names.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::metrics::observe_count;
use crate::names::{attribute, metric};
use crate::recorder::OWN;

/// Observed runtimes, in the order of the calls.
static OBSERVED: RwLock<Vec<RuntimeMetrics>> = RwLock::new(Vec::new());

/// Registers metrics of the runtime of `handle`: `tokio.runtime.workers`, `tokio.runtime.alive_tasks`,
/// `tokio.runtime.global_queue.depth` and, for each worker, `tokio.runtime.worker.busy_time` in seconds and
/// `tokio.runtime.worker.parks`.
///
/// Call it once for each runtime, after [`crate::init`]. The numbers of several runtimes are added up, and the workers
/// of each are numbered after those of the runtimes before it.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Runtime::new()?;
/// otel_service::observe_runtime(runtime.handle());
/// # Ok(())
/// # }
/// ```
pub fn observe_runtime(handle: &Handle) {
    let mut runtimes = OBSERVED.write().unwrap_or_else(PoisonError::into_inner);
    runtimes.push(handle.metrics());
    if runtimes.len() > 1 {
        return;
    }
    drop(runtimes);
    let meter = OWN.meter();
    let count = |name, unit, description, read: fn(&RuntimeMetrics) -> usize| {
        observe_count(&meter, name, unit, description, move || {
            i64::try_from(observed().iter().map(read).sum::<usize>()).ok()
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
    meter
        .f64_observable_counter(metric::TOKIO_RUNTIME_WORKER_BUSY_TIME)
        .with_unit("s")
        .with_description("Time the worker spent running tasks.")
        .with_callback(|observer| {
            each_worker(observer, |runtime, worker| {
                runtime.worker_total_busy_duration(worker).as_secs_f64()
            });
        })
        .build();
    meter
        .u64_observable_counter(metric::TOKIO_RUNTIME_WORKER_PARKS)
        .with_unit("{park}")
        .with_description("Times the worker parked because no task was ready.")
        .with_callback(|observer| each_worker(observer, RuntimeMetrics::worker_park_count))
        .build();
}

fn observed() -> RwLockReadGuard<'static, Vec<RuntimeMetrics>> {
    OBSERVED.read().unwrap_or_else(PoisonError::into_inner)
}

fn each_worker<T>(observer: &dyn AsyncInstrument<T>, read: impl Fn(&RuntimeMetrics, usize) -> T) {
    let runtimes = observed();
    let workers = runtimes
        .iter()
        .flat_map(|runtime| (0..runtime.num_workers()).map(move |worker| (runtime, worker)));
    for (index, (runtime, worker)) in (0_i64..).zip(workers) {
        observer.observe(
            read(runtime, worker),
            &[KeyValue::new(attribute::TOKIO_WORKER_INDEX, index)],
        );
    }
}
