//! Metrics of connection pools: the number of connections, and the durations of opening, waiting for and
//! using a connection. Follows the database conventions that are still in development (OpenTelemetry semantic
//! conventions 1.44).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::Counter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{DurationHistogram, DurationSeries};

use super::Database;
use crate::metrics::{self, DATABASE_SECONDS, Instruments};
use crate::recorder::OWN;

const POOL_NAME: &str = "db.client.connection.pool.name";

static INSTRUMENTS: Instruments<Pools> = Instruments::new();

#[derive(Debug)]
struct Pools {
    /// Indexed by [`Phase`].
    durations: [DurationHistogram; 3],
    timeouts: Counter<u64>,
}

/// A phase in the life of a connection whose duration is recorded.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Create,
    Wait,
    Use,
}

fn instruments() -> Option<&'static Pools> {
    INSTRUMENTS.get(&OWN, |factory| {
        let seconds = |name, description| factory.durations(name, description, &DATABASE_SECONDS);
        Pools {
            durations: [
                seconds(
                    "db.client.connection.create_time",
                    "The time it took to create a new connection.",
                ),
                seconds(
                    "db.client.connection.wait_time",
                    "The time it took to obtain an open connection from the pool.",
                ),
                seconds(
                    "db.client.connection.use_time",
                    "The time between borrowing a connection and returning it to the pool.",
                ),
            ],
            timeouts: factory
                .meter()
                .u64_counter("db.client.connection.timeouts")
                .with_unit("{timeout}")
                .with_description(
                    "Connection timeouts that have occurred trying to obtain a connection from the pool.",
                )
                .build(),
        }
    })
}

/// A snapshot of a connection pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCounts {
    /// Idle connections.
    pub idle: u64,
    /// Connections in use.
    pub used: u64,
    /// Maximum number of connections.
    pub max: u64,
    /// Callers waiting for a connection.
    pub pending: u64,
}

impl Database {
    /// Registers gauges for the connections of a pool. Call it after [`crate::init`].
    ///
    /// `read` is called whenever metrics are collected, so it must be quick and must not block.
    pub fn observe_connections(
        &self,
        pool: &'static str,
        read: impl Fn() -> ConnectionCounts + Send + Sync + 'static,
    ) {
        type Count = fn(&ConnectionCounts) -> u64;
        let (meter, read) = (metrics::meter(), Arc::new(read));
        let observe = |name, unit, description, series: Vec<(Vec<KeyValue>, Count)>| {
            let read = Arc::clone(&read);
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    let counts = read();
                    for (attributes, count) in &series {
                        observer.observe(i64::try_from(count(&counts)).unwrap_or(i64::MAX), attributes);
                    }
                })
                .build();
        };
        let named = || KeyValue::new(POOL_NAME, pool);
        let state = |state: &'static str| vec![named(), KeyValue::new("db.client.connection.state", state)];
        observe(
            "db.client.connection.count",
            "{connection}",
            "Connections that are currently in the state given by the `state` attribute.",
            vec![
                (state("idle"), |counts| counts.idle),
                (state("used"), |counts| counts.used),
            ],
        );
        observe(
            "db.client.connection.max",
            "{connection}",
            "Maximum number of open connections allowed.",
            vec![(vec![named()], |counts| counts.max)],
        );
        observe(
            "db.client.connection.pending_requests",
            "{request}",
            "Current pending requests for an open connection.",
            vec![(vec![named()], |counts| counts.pending)],
        );
    }
}

/// The histograms of one connection pool; cheap to clone.
///
/// Records nothing before [`crate::init`] or while metrics are disabled.
///
/// ```
/// use std::time::Instant;
/// use otel_service::ConnectionTimes;
///
/// let times = ConnectionTimes::new("orders");
/// let started = Instant::now();
/// // ... get a connection from the pool ...
/// times.waited(started.elapsed());
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionTimes {
    attributes: [KeyValue; 1],
    /// Indexed by [`Phase`]. Each series is created on first use, because empty series would be exported too.
    series: Arc<[OnceLock<DurationSeries>; 3]>,
}

impl ConnectionTimes {
    /// Creates the histograms of the pool with this `db.client.connection.pool.name`.
    #[must_use]
    pub fn new(pool: &'static str) -> Self {
        Self {
            attributes: [KeyValue::new(POOL_NAME, pool)],
            series: Arc::default(),
        }
    }

    /// Records `db.client.connection.create_time`, the time it took to open a connection.
    pub fn created(&self, time: Duration) {
        self.record(Phase::Create, time);
    }

    /// Records `db.client.connection.wait_time`, the time a caller waited for a connection.
    pub fn waited(&self, time: Duration) {
        self.record(Phase::Wait, time);
    }

    /// Records `db.client.connection.use_time`, the time between obtaining a connection and returning it.
    pub fn used(&self, time: Duration) {
        self.record(Phase::Use, time);
    }

    /// Adds one to `db.client.connection.timeouts`, the number of time-outs while waiting for a connection.
    pub fn timed_out(&self) {
        if let Some(pools) = instruments() {
            pools.timeouts.add(1, &self.attributes);
        }
    }

    fn record(&self, phase: Phase, time: Duration) {
        let Some(pools) = instruments() else { return };
        let histogram = &pools.durations[phase as usize];
        let series = self.series[phase as usize].get_or_init(|| histogram.series(&self.attributes));
        Context::map_current(|cx| {
            series.record(time.as_secs_f64(), cx.span().span_context());
        });
    }
}
