//! Instruments that can be declared anywhere, including in statics, and are created after [`crate::init`]. An
//! instrument of the global meter that is created before the provider is set would never record anything.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::metrics::Meter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use otlp_recorder::{DurationHistogram, Exemplars};

use crate::recorder::{self, Instrumentation};

/// Maximum number of attribute sets that a table of bound instruments keeps.
pub(crate) const SERIES_LIMIT: usize = 512;

/// Bucket bounds in seconds that the semantic conventions recommend for requests and messages.
pub const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bucket bounds in seconds that the semantic conventions recommend for database operations.
pub(crate) const DATABASE_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// The exemplars of the process, set after the global meter provider.
static EXEMPLARS: OnceLock<Exemplars> = OnceLock::new();

/// Whether the instruments have the names of Python's instrumentation too.
static PYTHON_NAMES: AtomicBool = AtomicBool::new(false);

/// Whether [`TelemetryBuilder::python_names`](crate::TelemetryBuilder::python_names) was called.
pub fn python_names() -> bool {
    PYTHON_NAMES.load(Ordering::Relaxed)
}

pub(crate) fn set_python_names(are_used: bool) {
    PYTHON_NAMES.store(are_used, Ordering::Relaxed);
}

/// Enables the instruments. The global meter provider must be set.
pub(crate) fn enable(exemplars: Exemplars) {
    EXEMPLARS.get_or_init(|| exemplars);
}

/// Whether metrics are recorded.
pub(crate) fn is_ready() -> bool {
    EXEMPLARS.get().is_some()
}

/// Returns the meter of the service, for instruments that this crate does not provide.
///
/// Before [`crate::init`] it records nothing. All synchronous instruments have exemplars.
pub fn meter() -> Meter {
    recorder::service().meter()
}

/// Registers an up-down counter whose value `read` returns whenever metrics are collected; nothing is
/// reported while `read` returns `None`.
pub(crate) fn observe_count(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    read: impl Fn() -> Option<i64> + Send + Sync + 'static,
) {
    meter
        .i64_observable_up_down_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            if let Some(count) = read() {
                observer.observe(count, &[]);
            }
        })
        .build();
}

/// A cell that creates instruments once, when metrics are enabled.
///
/// ```
/// use opentelemetry::metrics::Counter;
/// use otel_service::instrumentation::{Instrumentation, Instruments};
/// # use otel_service::opentelemetry;
///
/// static CACHE: Instrumentation = Instrumentation::new("my-cache", "1.0.0");
/// static HITS: Instruments<Counter<u64>> = Instruments::new();
///
/// let hits = HITS.get(&CACHE, |factory| factory.meter().u64_counter("cache.hits").build());
/// if let Some(hits) = hits {
///     hits.add(1, &[]);
/// }
/// ```
#[derive(Debug, Default)]
pub struct Instruments<T>(OnceLock<T>);

/// Creates the instruments of a library.
#[derive(Debug)]
pub struct InstrumentFactory<'a> {
    meter: Meter,
    exemplars: &'a Exemplars,
}

impl InstrumentFactory<'_> {
    /// Returns the meter of the library.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Creates a histogram of seconds with exemplars; `bounds` are the upper bounds of its buckets.
    #[must_use]
    pub fn durations(
        &self,
        name: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> DurationHistogram {
        self.values(name, "s", description, bounds)
    }

    /// Creates a histogram of `unit` with exemplars; `bounds` are the upper bounds of its buckets.
    #[must_use]
    pub fn values(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> DurationHistogram {
        DurationHistogram::with_unit(&self.meter, self.exemplars, name, unit, description, bounds)
    }
}

impl<T> Instruments<T> {
    /// Creates an empty cell.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the instruments, which `make` creates on the first call after [`crate::init`], or `None` while
    /// metrics are disabled.
    pub fn get(
        &self,
        library: &Instrumentation,
        make: impl FnOnce(&InstrumentFactory<'_>) -> T,
    ) -> Option<&T> {
        if let Some(made) = self.0.get() {
            return Some(made);
        }
        let exemplars = EXEMPLARS.get()?;
        Some(self.0.get_or_init(|| {
            make(&InstrumentFactory {
                meter: library.meter(),
                exemplars,
            })
        }))
    }
}

/// A counter of the service. Counting before [`crate::init`], or with metrics disabled, does nothing.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    instrument: Instruments<opentelemetry::metrics::Counter<u64>>,
}

/// Declares a counter. `unit` is a UCUM unit, such as `{attempt}`.
///
/// ```
/// static LOGINS: otel_service::Counter =
///     otel_service::counter("auth.login.attempts", "{attempt}", "Login attempts.");
/// LOGINS.add(1, &[otel_service::KeyValue::new("status", "success")]);
/// ```
pub const fn counter(name: &'static str, unit: &'static str, description: &'static str) -> Counter {
    Counter {
        name,
        unit,
        description,
        instrument: Instruments::new(),
    }
}

impl Counter {
    /// Adds `count`. The attributes must have a bounded number of values.
    pub fn add(&self, count: u64, attributes: &[KeyValue]) {
        let instrument = self.instrument.get(recorder::service(), |factory| {
            factory
                .meter()
                .u64_counter(self.name)
                .with_unit(self.unit)
                .with_description(self.description)
                .build()
        });
        if let Some(instrument) = instrument {
            instrument.add(count, attributes);
        }
    }
}

/// A histogram of durations in seconds. Recording before [`crate::init`], or with metrics disabled, does
/// nothing.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    description: &'static str,
    instrument: Instruments<DurationHistogram>,
}

/// Declares a histogram of seconds with the bucket bounds that the semantic conventions recommend for
/// requests.
///
/// ```
/// use std::time::Duration;
///
/// static RENDERING: otel_service::Histogram =
///     otel_service::histogram("page.render.duration", "Duration of rendering a page.");
/// RENDERING.record(Duration::from_millis(3), &[otel_service::KeyValue::new("page", "home")]);
/// ```
pub const fn histogram(name: &'static str, description: &'static str) -> Histogram {
    Histogram {
        name,
        description,
        instrument: Instruments::new(),
    }
}

impl Histogram {
    /// Records a duration, with the current span as its exemplar if `OTEL_METRICS_EXEMPLAR_FILTER` allows.
    /// The attributes must have a bounded number of values: only the first 512 attribute sets have exemplars,
    /// and sets beyond the SDK's limit of 2,000 are aggregated as `otel.metric.overflow`.
    pub fn record(&self, duration: Duration, attributes: &[KeyValue]) {
        let instrument = self.instrument.get(recorder::service(), |factory| {
            factory.durations(self.name, self.description, &SECONDS)
        });
        if let Some(instrument) = instrument {
            Context::map_current(|cx| {
                instrument.record(duration.as_secs_f64(), attributes, cx.span().span_context());
            });
        }
    }
}
