//! Metrics of the outbox. A growing backlog means that the broker is unavailable.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, names::metric, store::OutboxStore};

/// Interval between counts of the outbox.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts the waiting tasks until `shutdown` is cancelled. The metrics have no values while the store is
/// unavailable.
pub async fn watch_backlog(store: Arc<dyn OutboxStore>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    // Number of tasks, and age of the oldest.
    let seen: Arc<Mutex<Option<[f64; 2]>>> = Arc::default();
    let observe = |index: usize| {
        let seen = seen.clone();
        move || {
            let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.map(|values| (values[index], Vec::new()))
                .into_iter()
                .collect()
        }
    };
    telemetry::observe_gauge(
        metric::OUTBOX_TASKS,
        "{task}",
        "Tasks that wait to be published",
        observe(0),
    );
    telemetry::observe_gauge(
        metric::OUTBOX_AGE,
        "s",
        "Age of the oldest task that waits to be published",
        observe(1),
    );
    loop {
        let counted = telemetry::without_spans(store.outbox_backlog()).await.ok();
        let values = counted.map(|backlog| {
            let age = backlog
                .oldest
                .map(|oldest| clock.now().duration_since(oldest).as_secs_f64());
            [as_f64(backlog.tasks), age.unwrap_or_default().max(0.0)]
        });
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = values;
        let interval = tokio::time::sleep(INTERVAL);
        if shutdown.run_until_cancelled(interval).await.is_none() {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no outbox has more than 2^53 tasks")]
fn as_f64(count: i64) -> f64 {
    count as f64
}
