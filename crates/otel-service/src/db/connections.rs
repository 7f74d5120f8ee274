//! What the callers of a connection pool experience, by the development part of the database conventions
//! (OpenTelemetry semantic conventions 1.4x): how long they wait for a connection, use it, and how long opening one
//! takes. How many there are is reported by [`crate::Database::observe_connections`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::Counter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use crate::metrics::{DATABASE_SECONDS, Durations, Instruments, Series};

static INSTRUMENTS: Instruments<Pools> = Instruments::new();

#[derive(Debug)]
struct Pools {
    create: Durations,
    wait: Durations,
    hold: Durations,
    timeouts: Counter<u64>,
}

fn instruments() -> Option<&'static Pools> {
    INSTRUMENTS.get(|meter| {
        let seconds = |name, description| Durations::new(meter, name, description, &DATABASE_SECONDS);
        Pools {
            create: seconds(
                "db.client.connection.create_time",
                "The time it took to create a new connection.",
            ),
            wait: seconds(
                "db.client.connection.wait_time",
                "The time it took to obtain an open connection from the pool.",
            ),
            hold: seconds(
                "db.client.connection.use_time",
                "The time between borrowing a connection and returning it to the pool.",
            ),
            timeouts: meter
                .u64_counter("db.client.connection.timeouts")
                .with_unit("{timeout}")
                .with_description("Connections that were not had from the pool in time.")
                .build(),
        }
    })
}

/// The measures of one connection pool; cheap to clone. What is measured before [`crate::init`], or with metrics
/// switched off, goes nowhere.
///
/// ```
/// use std::time::Instant;
/// use otel_service::ConnectionTimes;
///
/// let times = ConnectionTimes::new("orders");
/// let asked = Instant::now();
/// // ... a connection is there ...
/// times.waited(asked.elapsed());
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionTimes {
    attributes: [KeyValue; 1],
    measured: Arc<Measured>,
}

/// The series of one pool. Each is there once something was measured: an empty one would be exported too.
#[derive(Debug, Default)]
struct Measured {
    create: OnceLock<Series>,
    wait: OnceLock<Series>,
    hold: OnceLock<Series>,
}

impl ConnectionTimes {
    /// `pool` is the pool's `db.client.connection.pool.name`.
    #[must_use]
    pub fn new(pool: &'static str) -> Self {
        Self {
            attributes: [KeyValue::new("db.client.connection.pool.name", pool)],
            measured: Arc::default(),
        }
    }

    /// A connection was opened: `db.client.connection.create_time`.
    pub fn created(&self, after: Duration) {
        self.record(&self.measured.create, |pools| &pools.create, after);
    }

    /// A caller got a connection: `db.client.connection.wait_time`.
    pub fn waited(&self, time: Duration) {
        self.record(&self.measured.wait, |pools| &pools.wait, time);
    }

    /// A caller gave its connection back: `db.client.connection.use_time`.
    pub fn used(&self, time: Duration) {
        self.record(&self.measured.hold, |pools| &pools.hold, time);
    }

    /// A caller did not get a connection in time: `db.client.connection.timeouts`.
    pub fn timed_out(&self) {
        if let Some(pools) = instruments() {
            pools.timeouts.add(1, &self.attributes);
        }
    }

    fn record(&self, series: &OnceLock<Series>, histogram: fn(&Pools) -> &Durations, time: Duration) {
        let Some(pools) = instruments() else { return };
        let series = series.get_or_init(|| histogram(pools).series(&self.attributes));
        Context::map_current(|cx| {
            series.record(time.as_secs_f64(), cx.span().span_context());
        });
    }
}
