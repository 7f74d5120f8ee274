//! What the service stands on, and whether each part of it answers.

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

use crate::store::Store;

/// How long a part may take to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long workers have to answer; so much less than the whole check that their silence is told in time.
const PING_TIMEOUT: Duration = Duration::from_millis(900);

/// How long an answer holds: workers are asked no more often, however many probes ask.
const PING_INTERVAL: Duration = Duration::from_secs(2);

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
    /// To Redis, and on to workers of whatever language.
    Redis {
        broker: Arc<dyn Broker>,
        workers: Arc<Workers>,
    },
    /// To the worker in this very process.
    InProcess,
}

impl Queue {
    /// Through this broker.
    #[must_use]
    pub fn through(broker: Arc<dyn Broker>) -> Self {
        let workers = Arc::new(Workers::new(broker.clone()));
        Self::Redis { broker, workers }
    }
}

/// Asks the workers, by Celery's remote control, whether there are any.
#[derive(Debug)]
pub struct Workers {
    control: Control,
    /// When they were asked and whether one answered; locked while they are being asked.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Workers {
    fn new(broker: Arc<dyn Broker>) -> Self {
        Self {
            // The first answer is enough.
            control: Control::new(broker).timeout(PING_TIMEOUT).limit(1),
            last: Mutex::default(),
        }
    }

    async fn answer(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((asked, answered)) = *last
            && asked.elapsed() < PING_INTERVAL
        {
            return answered;
        }
        let answered = self.control.ping().await.is_ok_and(|nodes| !nodes.is_empty());
        *last = Some((Instant::now(), answered));
        answered
    }
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
                let redis = tokio::time::timeout(CHECK_TIMEOUT, broker.ping());
                let workers = tokio::time::timeout(CHECK_TIMEOUT, workers.answer());
                let (redis, workers) = tokio::join!(redis, workers);
                let healthy = matches!(redis, Ok(Ok(())));
                (State::of(healthy), State::of(workers == Ok(true)))
            }
        }
    }
}
