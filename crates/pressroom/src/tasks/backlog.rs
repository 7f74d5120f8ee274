//! Metrics of the outbox: a growing backlog means that the broker is unavailable.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, domain::Backlog, names::metric, store::OutboxStore};

/// Time between two counts of the outbox.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts the waiting tasks until `shutdown`. Reports nothing while the store is unavailable.
pub async fn watch_backlog(store: Arc<dyn OutboxStore>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let seen: Arc<Mutex<Option<(Backlog, Timestamp)>>> = Arc::default();
    let tasks = seen.clone();
    telemetry::observe_gauge(
        metric::OUTBOX_TASKS,
        "{task}",
        "Tasks that wait to be published",
        move || {
            let seen = *tasks.lock().unwrap_or_else(PoisonError::into_inner);
            seen.into_iter()
                .map(|(backlog, _)| (as_f64(backlog.tasks), Vec::new()))
                .collect()
        },
    );
    let oldest = seen.clone();
    telemetry::observe_gauge(
        metric::OUTBOX_AGE,
        "s",
        "Age of the oldest task that waits to be published",
        move || {
            let seen = *oldest.lock().unwrap_or_else(PoisonError::into_inner);
            seen.into_iter()
                .map(|(backlog, now)| {
                    let age = backlog
                        .oldest
                        .map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64());
                    (age.max(0.0), Vec::new())
                })
                .collect()
        },
    );
    loop {
        let counted = telemetry::without_spans(store.outbox_backlog()).await;
        let counted = counted.ok().map(|backlog| (backlog, clock.now()));
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        let pause = tokio::time::sleep(INTERVAL);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no outbox holds more tasks than a float can count"
)]
fn as_f64(count: i64) -> f64 {
    count as f64
}
