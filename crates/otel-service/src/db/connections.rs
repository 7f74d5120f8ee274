//! Duration metrics of a connection pool: the time to open a connection, to wait for one, and to use it.
//! Follows the database conventions that are still in development (OpenTelemetry semantic conventions 1.44).
//! [`crate::Database::observe_connections`] reports the number of connections.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::Counter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{DurationHistogram, DurationSeries};

use crate::metrics::{DATABASE_SECONDS, Instruments};
use crate::recorder::OWN;

static INSTRUMENTS: Instruments<Pools> = Instruments::new();

#[derive(Debug)]
struct Pools {
    create: DurationHistogram,
    wait: DurationHistogram,
    usage: DurationHistogram,
    timeouts: Counter<u64>,
}

fn instruments() -> Option<&'static Pools> {
    INSTRUMENTS.get(&OWN, |factory| {
        let seconds = |name, description| factory.durations(name, description, &DATABASE_SECONDS);
        Pools {
            create: seconds(
                "db.client.connection.create_time",
                "The time it took to create a new connection.",
            ),
            wait: seconds(
                "db.client.connection.wait_time",
                "The time it took to obtain an open connection from the pool.",
            ),
            usage: seconds(
                "db.client.connection.use_time",
                "The time between borrowing a connection and returning it to the pool.",
            ),
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
    series: Arc<PoolSeries>,
}

/// The series of one pool. Each series is created on first use, because empty series would be exported too.
#[derive(Debug, Default)]
struct PoolSeries {
    create: OnceLock<DurationSeries>,
    wait: OnceLock<DurationSeries>,
    usage: OnceLock<DurationSeries>,
}

impl ConnectionTimes {
    /// Creates the histograms of the pool with this `db.client.connection.pool.name`.
    #[must_use]
    pub fn new(pool: &'static str) -> Self {
        Self {
            attributes: [KeyValue::new("db.client.connection.pool.name", pool)],
            series: Arc::default(),
        }
    }

    /// Records `db.client.connection.create_time`, the time it took to open a connection.
    pub fn created(&self, time: Duration) {
        self.record(&self.series.create, |pools| &pools.create, time);
    }

    /// Records `db.client.connection.wait_time`, the time a caller waited for a connection.
    pub fn waited(&self, time: Duration) {
        self.record(&self.series.wait, |pools| &pools.wait, time);
    }

    /// Records `db.client.connection.use_time`, the time between obtaining a connection and returning it.
    pub fn used(&self, time: Duration) {
        self.record(&self.series.usage, |pools| &pools.usage, time);
    }

    /// Adds one to `db.client.connection.timeouts`, the number of time-outs while waiting for a connection.
    pub fn timed_out(&self) {
        if let Some(pools) = instruments() {
            pools.timeouts.add(1, &self.attributes);
        }
    }

    fn record(
        &self,
        series: &OnceLock<DurationSeries>,
        histogram: fn(&Pools) -> &DurationHistogram,
        time: Duration,
    ) {
        let Some(pools) = instruments() else { return };
        let series = series.get_or_init(|| histogram(pools).series(&self.attributes));
        Context::map_current(|cx| {
            series.record(time.as_secs_f64(), cx.span().span_context());
        });
    }
}
