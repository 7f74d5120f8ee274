//! Health of the components that the service depends on: the database, Redis and the workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use celeriac::{Broker, Control};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use crate::store::HealthStore;

/// Time limit of the check of a component.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit of a worker's reply; shorter than [`CHECK_TIMEOUT`], because a missing reply must be reported in time.
const PING_TIMEOUT: Duration = Duration::from_millis(900);

/// Minimum time between two pings of the workers, for any number of probes.
const PING_INTERVAL: Duration = Duration::from_secs(2);

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
    pub async fn check(&self) -> Report {
        let database = tokio::time::timeout(CHECK_TIMEOUT, self.store.ping());
        let (database, (redis, celery)) = tokio::join!(database, self.check_queue());
        Report {
            database: ComponentStatus::of(matches!(database, Ok(Ok(())))),
            redis,
            celery,
        }
    }

    /// Returns whether this process accepts requests.
    pub async fn is_ready(&self) -> bool {
        if self.draining.load(Ordering::Relaxed) {
            return false;
        }
        let current = tokio::time::timeout(CHECK_TIMEOUT, self.store.schema_is_current()).await;
        matches!(current, Ok(Ok(true)))
    }

    /// Makes readiness checks fail from now on, because the process is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn check_queue(&self) -> (ComponentStatus, ComponentStatus) {
        match &self.queue {
            TaskQueue::InProcess => (ComponentStatus::Healthy, ComponentStatus::Healthy),
            TaskQueue::Redis { broker, workers } => {
                let redis = tokio::time::timeout(CHECK_TIMEOUT, broker.ping());
                let workers = tokio::time::timeout(CHECK_TIMEOUT, workers.any_alive());
                let (redis, workers) = tokio::join!(redis, workers);
                let redis = ComponentStatus::of(matches!(redis, Ok(Ok(()))));
                (redis, ComponentStatus::of(workers == Ok(true)))
            }
        }
    }
}
