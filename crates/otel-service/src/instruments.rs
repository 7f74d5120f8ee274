//! More instruments that can be declared anywhere; see [`crate::metrics`].

use std::fmt;

use opentelemetry::metrics::{Counter, Gauge, Meter, UpDownCounter};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use otlp_recorder::DurationHistogram;

use crate::metrics::Instruments;
use crate::recorder;

/// An instrument of the service that is created when metrics are enabled. Recording before [`crate::init`], or
/// with metrics disabled, does nothing.
pub struct Static<T> {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    build: fn(&Meter, &Static<T>) -> T,
    instrument: Instruments<T>,
}

/// A counter of fractional amounts. See [`float_counter`].
pub type FloatCounter = Static<Counter<f64>>;

/// A sum that also decreases. See [`up_down_counter`].
pub type UpDown = Static<UpDownCounter<i64>>;

/// A value that is set. See [`gauge`].
pub type ValueGauge = Static<Gauge<f64>>;

impl<T> fmt::Debug for Static<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Static")
            .field("name", &self.name)
            .field("unit", &self.unit)
            .finish_non_exhaustive()
    }
}

impl<T> Static<T> {
    const fn new(
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        build: fn(&Meter, &Self) -> T,
    ) -> Self {
        Self {
            name,
            unit,
            description,
            build,
            instrument: Instruments::new(),
        }
    }

    fn get(&self) -> Option<&T> {
        self.instrument
            .get(recorder::service(), |factory| (self.build)(factory.meter(), self))
    }
}

/// Declares a counter of fractional amounts, such as a duration in seconds or a price.
///
/// ```
/// static WAITED: otel_service::FloatCounter =
///     otel_service::float_counter("lock.wait_time", "s", "Time spent waiting for locks.");
/// WAITED.add(0.25, &[]);
/// ```
pub const fn float_counter(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
) -> FloatCounter {
    Static::new(name, unit, description, |meter, own| {
        let builder = meter.f64_counter(own.name).with_unit(own.unit);
        builder.with_description(own.description).build()
    })
}

impl Static<Counter<f64>> {
    /// Adds `amount`, which must not be negative. The attributes must have a bounded number of values.
    pub fn add(&self, amount: f64, attributes: &[KeyValue]) {
        if let Some(counter) = self.get() {
            counter.add(amount, attributes);
        }
    }
}

/// Declares a sum that also decreases, such as the number of open connections.
///
/// ```
/// static OPEN: otel_service::UpDown =
///     otel_service::up_down_counter("session.open", "{session}", "Open sessions.");
/// OPEN.add(1, &[]);
/// OPEN.add(-1, &[]);
/// ```
pub const fn up_down_counter(name: &'static str, unit: &'static str, description: &'static str) -> UpDown {
    Static::new(name, unit, description, |meter, own| {
        let builder = meter.i64_up_down_counter(own.name).with_unit(own.unit);
        builder.with_description(own.description).build()
    })
}

impl Static<UpDownCounter<i64>> {
    /// Adds `amount`, which may be negative. The attributes must have a bounded number of values.
    pub fn add(&self, amount: i64, attributes: &[KeyValue]) {
        if let Some(counter) = self.get() {
            counter.add(amount, attributes);
        }
    }
}

/// Declares a gauge whose value the program sets when it changes; [`observe_gauge`](crate::observe_gauge) asks for
/// the value instead.
///
/// ```
/// static TEMPERATURE: otel_service::ValueGauge =
///     otel_service::gauge("oven.temperature", "Cel", "Temperature of the oven.");
/// TEMPERATURE.set(180.0, &[]);
/// ```
pub const fn gauge(name: &'static str, unit: &'static str, description: &'static str) -> ValueGauge {
    Static::new(name, unit, description, |meter, own| {
        let builder = meter.f64_gauge(own.name).with_unit(own.unit);
        builder.with_description(own.description).build()
    })
}

impl Static<Gauge<f64>> {
    /// Sets the value. The attributes must have a bounded number of values.
    pub fn set(&self, value: f64, attributes: &[KeyValue]) {
        if let Some(gauge) = self.get() {
            gauge.record(value, attributes);
        }
    }
}

/// A histogram with a unit and buckets of its own. See [`value_histogram`].
#[derive(Debug)]
pub struct ValueHistogram {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    bounds: &'static [f64],
    instrument: Instruments<DurationHistogram>,
}

/// Declares a histogram with any unit; `bounds` are the upper bounds of its buckets.
///
/// ```
/// static SIZE: otel_service::ValueHistogram =
///     otel_service::value_histogram("upload.size", "By", "Size of uploads.", &[1e3, 1e4, 1e5, 1e6]);
/// SIZE.record(4_096.0, &[]);
/// ```
pub const fn value_histogram(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    bounds: &'static [f64],
) -> ValueHistogram {
    ValueHistogram {
        name,
        unit,
        description,
        bounds,
        instrument: Instruments::new(),
    }
}

impl ValueHistogram {
    /// Records a value, with exemplars as [`Histogram::record`](crate::Histogram::record) does.
    pub fn record(&self, value: f64, attributes: &[KeyValue]) {
        let instrument = self.instrument.get(recorder::service(), |factory| {
            factory.values(self.name, self.unit, self.description, self.bounds)
        });
        if let Some(instrument) = instrument {
            Context::map_current(|cx| instrument.record(value, attributes, cx.span().span_context()));
        }
    }
}
