//! Health of the components that the service depends on: the database, Redis and the workers. Probes request it;
//! a background job logs when the database becomes able or unable to serve requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use celeriac::{Broker, Control};
use serde::Serialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::store::HealthStore;

/// Time limit of the check of a component.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit of a worker's reply; shorter than [`CHECK_TIMEOUT`], because a missing reply must be reported in time.
const PING_TIMEOUT: Duration = Duration::from_millis(900);

/// Minimum time between two pings of the workers, for any number of probes.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Interval between checks of the database whose result is logged.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Message about a database that does not respond. Anyone can request it, so the reason is only in the log.
const DATABASE_UNAVAILABLE: &str = "the database is unavailable";

/// Status of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentStatus {
    Healthy,
    Unhealthy,
}

impl ComponentStatus {
    fn of(healthy: bool) -> Self {
        if healthy { Self::Healthy } else { Self::Unhealthy }
    }
}

/// Result of a check of all components.
#[derive(Debug, Clone)]
pub struct Checked {
    pub components: Report,
    /// Problems and remedies of components that are not healthy, and notices.
    pub messages: Vec<String>,
}

/// Status of each component.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Components)]
pub struct Report {
    #[schema(value_type = String, example = "healthy")]
    pub database: ComponentStatus,
    #[schema(value_type = String, example = "healthy")]
    pub redis: ComponentStatus,
    /// Healthy if at least one worker is alive.
    #[schema(value_type = String, example = "healthy")]
    pub celery: ComponentStatus,
}

/// Queue that tasks are published to.
#[derive(Debug, Clone)]
pub enum TaskQueue {
    /// Redis, consumed by workers in any language.
    Redis {
        broker: Arc<dyn Broker>,
        workers: Arc<Workers>,
    },
    /// A queue in memory, consumed by the worker of this process.
    InProcess,
}

impl TaskQueue {
    /// Returns the queue of a broker.
    #[must_use]
    pub fn through(broker: Arc<dyn Broker>) -> Self {
        let workers = Arc::new(Workers::new(broker.clone()));
        Self::Redis { broker, workers }
    }
}

/// Pings the workers through Celery's remote control.
#[derive(Debug)]
pub struct Workers {
    control: Control,
    /// Time of the last ping and whether a worker replied; locked during a ping.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Workers {
    fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            // One reply is enough.
            control: Control::new(broker).timeout(PING_TIMEOUT).limit(1),
            last: Mutex::default(),
        }
    }

    async fn any_alive(&self) -> bool {
        let mut last = self.last.lock().await;
        match *last {
            Some((pinged, replied)) if pinged.elapsed() < PING_INTERVAL => replied,
            _ => {
                let replied = self.control.ping().await.is_ok_and(|nodes| !nodes.is_empty());
                *last = Some((Instant::now(), replied));
                replied
            }
        }
    }
}

/// Checks the components, over the connections that requests use.
#[derive(Debug, Clone)]
pub struct Health {
    service_name: String,
    store: Arc<dyn HealthStore>,
    queue: TaskQueue,
    draining: Arc<AtomicBool>,
}

impl Health {
    #[must_use]
    pub fn new(service_name: String, store: Arc<dyn HealthStore>, queue: TaskQueue) -> Self {
        Self {
            service_name,
            store,
            queue,
            draining: Arc::default(),
        }
    }

    /// Returns the name of this service in telemetry.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.service_name
    }

    /// Checks all components concurrently, within a second.
    pub async fn check(&self) -> Checked {
        let database = check_database(self.store.as_ref());
        let (database, (redis, celery)) = tokio::join!(database, self.check_queue());
        let components = Report {
            database: ComponentStatus::of(database.is_ok()),
            redis,
            celery,
        };
        let mut messages: Vec<String> = database.unwrap_or_else(Some).into_iter().collect();
        if redis == ComponentStatus::Unhealthy {
            messages.push("Redis is unavailable".to_owned());
        } else if celery == ComponentStatus::Unhealthy {
            messages.push("no worker responds: run pressroom worker".to_owned());
        }
        Checked { components, messages }
    }

    /// Checks whether this process accepts requests. Returns a notice, if there is one.
    ///
    /// # Errors
    /// Returns the reason requests are not accepted, and the remedy.
    pub async fn readiness(&self) -> Result<Option<String>, String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the server is shutting down".to_owned());
        }
        check_database(self.store.as_ref()).await
    }

    /// Makes readiness checks fail from now on, because the process is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn check_queue(&self) -> (ComponentStatus, ComponentStatus) {
        match &self.queue {
            TaskQueue::InProcess => (ComponentStatus::Healthy, ComponentStatus::Healthy),
            TaskQueue::Redis { broker, workers } => {
                let redis = timeout(CHECK_TIMEOUT, broker.ping());
                let workers = timeout(CHECK_TIMEOUT, workers.any_alive());
                let (redis, workers) = tokio::join!(redis, workers);
                let redis = ComponentStatus::of(matches!(redis, Ok(Ok(()))));
                (redis, ComponentStatus::of(workers == Ok(true)))
            }
        }
    }
}

/// Checks whether the database can serve requests. Returns a notice, if there is one, or the problem.
async fn check_database(store: &dyn HealthStore) -> Result<Option<String>, String> {
    match timeout(CHECK_TIMEOUT, store.state()).await {
        Ok(Ok(state)) => match state.problem() {
            Some(problem) => Err(problem),
            None => Ok(state.notice()),
        },
        Ok(Err(_)) | Err(_) => Err(DATABASE_UNAVAILABLE.to_owned()),
    }
}

/// Checks the database at intervals until `shutdown`, and logs whether it can serve requests: at the start, and
/// after each change. The store logs outages.
pub async fn watch_database(store: Arc<dyn HealthStore>, shutdown: CancellationToken) {
    let mut last = None;
    loop {
        if let Ok(Ok(state)) = timeout(CHECK_TIMEOUT, telemetry::without_spans(store.state())).await {
            let changed = last != Some(state);
            match (state.problem(), state.notice()) {
                (Some(reason), _) if changed => {
                    telemetry::error!(reason, "the database cannot serve requests");
                }
                (None, Some(notice)) if changed => telemetry::info!("{notice}"),
                (None, _) if changed && last.is_some() => telemetry::info!("the database can serve requests"),
                _ => {}
            }
            last = Some(state);
        }
        let interval = tokio::time::sleep(WATCH_INTERVAL);
        if shutdown.run_until_cancelled(interval).await.is_none() {
            return;
        }
    }
}
