//! What the service stands on, and whether each part of it answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use celeriac::{Broker, Presence};
use serde::Serialize;

use crate::store::Store;

/// How long a part may take to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a part answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Healthy,
    Unhealthy,
}

impl State {
    fn of(healthy: bool) -> Self {
        if healthy { Self::Healthy } else { Self::Unhealthy }
    }
}

/// The state of every part.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub database: State,
    pub redis: State,
    pub celery: State,
}

/// Where tasks go.
#[derive(Debug, Clone)]
pub enum Queue {
    /// To Redis, and on to workers whose heartbeats are heard.
    Redis {
        broker: Arc<dyn Broker>,
        workers: Arc<Presence>,
    },
    /// To the worker in this very process.
    InProcess,
}

/// Checks the parts, over the connections that requests use.
#[derive(Clone)]
pub struct Health {
    service_name: String,
    store: Arc<dyn Store>,
    queue: Queue,
    draining: Arc<AtomicBool>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    #[must_use]
    pub fn new(service_name: String, store: Arc<dyn Store>, queue: Queue) -> Self {
        Self {
            service_name,
            store,
            queue,
            draining: Arc::default(),
        }
    }

    /// The name that telemetry knows this service by.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.service_name
    }

    /// Asks every part at once; takes a second at most.
    pub async fn check(&self) -> Report {
        let database = tokio::time::timeout(CHECK_TIMEOUT, self.store.ping());
        let (database, (redis, celery)) = tokio::join!(database, self.check_queue());
        Report {
            database: State::of(matches!(database, Ok(Ok(())))),
            redis,
            celery,
        }
    }

    /// Whether requests may be sent here.
    pub async fn is_ready(&self) -> bool {
        if self.draining.load(Ordering::Relaxed) {
            return false;
        }
        let current = tokio::time::timeout(CHECK_TIMEOUT, self.store.schema_is_current()).await;
        matches!(current, Ok(Ok(true)))
    }

    /// From now on no requests are to be sent here, because the process is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn check_queue(&self) -> (State, State) {
        match &self.queue {
            Queue::InProcess => (State::Healthy, State::Healthy),
            Queue::Redis { broker, workers } => {
                let answer = tokio::time::timeout(CHECK_TIMEOUT, broker.ping()).await;
                let workers = State::of(workers.workers_alive() > 0);
                (State::of(matches!(answer, Ok(Ok(())))), workers)
            }
        }
    }
}
