//! Meters whose synchronous instruments keep exemplars: each measurement is recorded with the SDK and offered to the
//! reservoir of its attributes.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use opentelemetry::metrics::{
    AsyncInstrumentBuilder, BoundCounter, BoundGauge, BoundHistogram, BoundSyncInstrument,
    BoundUpDownCounter, Counter, Gauge, Histogram, HistogramBuilder, InstrumentBuilder, InstrumentProvider,
    Meter, MeterProvider, ObservableCounter, ObservableGauge, ObservableUpDownCounter, SyncInstrument,
    UpDownCounter,
};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::exemplar::{Exemplars, MAX_RESERVOIRS, Reservoir, Reservoirs};
use crate::table::Table;

/// Bucket bounds of the SDK's histograms if neither the instrument nor a view sets others.
const DEFAULT_BOUNDS: [f64; 15] = [
    0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0,
    10_000.0,
];

/// A meter provider that adds exemplars to the synchronous instruments of the SDK's.
///
/// The exemplar of a measurement is the current span. Asynchronous instruments have none, because their callbacks
/// run in no span.
#[derive(Clone, Debug)]
pub struct ExemplarMeterProvider {
    inner: SdkMeterProvider,
    exemplars: Exemplars,
}

impl ExemplarMeterProvider {
    /// Returns a provider that keeps the exemplars of the instruments of `inner` in `exemplars`.
    #[must_use]
    pub fn new(inner: SdkMeterProvider, exemplars: Exemplars) -> Self {
        Self { inner, exemplars }
    }
}

impl MeterProvider for ExemplarMeterProvider {
    fn meter_with_scope(&self, scope: InstrumentationScope) -> Meter {
        Meter::new(Arc::new(Instruments {
            meter: self.inner.meter_with_scope(scope),
            exemplars: self.exemplars.clone(),
        }))
    }
}

/// Creates the instruments of one scope.
struct Instruments {
    meter: Meter,
    exemplars: Exemplars,
}

impl Instruments {
    fn with_exemplars<I, T: Value>(
        &self,
        inner: I,
        name: Cow<'static, str>,
        bounds: &[f64],
    ) -> Arc<WithExemplars<I>> {
        Arc::new(WithExemplars {
            inner,
            reservoirs: self.exemplars.reservoirs(name, bounds, T::IS_INTEGER),
            by_attributes: OnceLock::new(),
        })
    }
}

/// A type of measurements.
trait Value: Copy + 'static {
    const IS_INTEGER: bool;

    /// Returns the value for an exemplar. Integers above 2^53 are rounded.
    fn to_f64(self) -> f64;
}

macro_rules! values {
    ($($type:ty, $is_integer:literal;)+) => {
        $(impl Value for $type {
            const IS_INTEGER: bool = $is_integer;

            fn to_f64(self) -> f64 {
                self as f64
            }
        })+
    };
}

values! {
    u64, true;
    i64, true;
    f64, false;
}

/// An instrument of the SDK with the reservoirs of its exemplars.
struct WithExemplars<I> {
    inner: I,
    reservoirs: Arc<Reservoirs>,
    by_attributes: OnceLock<Table<Vec<KeyValue>, Option<Arc<Reservoir>>>>,
}

impl<I> WithExemplars<I> {
    fn reservoir(&self, attributes: &[KeyValue]) -> Option<&Arc<Reservoir>> {
        let table = self.by_attributes.get_or_init(|| Table::new(MAX_RESERVOIRS));
        table
            .get(attributes, || self.reservoirs.open(attributes))?
            .as_ref()
    }

    fn offer(&self, value: impl Value, attributes: &[KeyValue]) {
        Context::map_current(|cx| {
            let span = cx.span();
            let span = span.span_context();
            if self.reservoirs.admits(span)
                && let Some(reservoir) = self.reservoir(attributes)
            {
                reservoir.offer(value.to_f64(), span);
            }
        });
    }
}

/// A bound instrument of the SDK with the reservoir of its attributes.
struct Bound<B> {
    inner: B,
    reservoir: Option<Arc<Reservoir>>,
}

macro_rules! instruments {
    ($($instrument:ident, $bound:ident, $record:ident;)+) => {
        $(
            impl<T: Value> SyncInstrument<T> for WithExemplars<$instrument<T>> {
                fn measure(&self, value: T, attributes: &[KeyValue]) {
                    self.inner.$record(value, attributes);
                    self.offer(value, attributes);
                }

                fn bind(&self, attributes: &[KeyValue]) -> Box<dyn BoundSyncInstrument<T> + Send + Sync> {
                    Box::new(Bound {
                        inner: self.inner.bind(attributes),
                        reservoir: self.reservoir(attributes).cloned(),
                    })
                }
            }

            impl<T: Value> BoundSyncInstrument<T> for Bound<$bound<T>> {
                fn measure(&self, value: T) {
                    self.inner.$record(value);
                    if let Some(reservoir) = &self.reservoir {
                        Context::map_current(|cx| reservoir.offer(value.to_f64(), cx.span().span_context()));
                    }
                }
            }
        )+
    };
}

instruments! {
    Counter, BoundCounter, add;
    UpDownCounter, BoundUpDownCounter, add;
    Gauge, BoundGauge, record;
    Histogram, BoundHistogram, record;
}

/// Sets the properties of `$from` that the builder `$to` lacks.
macro_rules! like {
    ($to:expr, $from:ident) => {{
        let mut to = $to;
        to.description = $from.description;
        to.unit = $from.unit;
        to
    }};
}

macro_rules! synchronous {
    ($($method:ident, $instrument:ident<$type:ty>;)+) => {
        $(fn $method(&self, builder: InstrumentBuilder<'_, $instrument<$type>>) -> $instrument<$type> {
            let name = builder.name.clone();
            let inner = like!(self.meter.$method(builder.name), builder).build();
            $instrument::new(self.with_exemplars::<_, $type>(inner, name, &[]))
        })+
    };
}

macro_rules! asynchronous {
    ($($method:ident, $instrument:ident<$type:ty>;)+) => {
        $(fn $method(
            &self,
            builder: AsyncInstrumentBuilder<'_, $instrument<$type>, $type>,
        ) -> $instrument<$type> {
            let mut inner = like!(self.meter.$method(builder.name), builder);
            inner.callbacks = builder.callbacks;
            inner.build()
        })+
    };
}

macro_rules! histograms {
    ($($method:ident, $type:ty;)+) => {
        $(
            #[expect(clippy::disallowed_methods, reason = "this type keeps their exemplars")]
            fn $method(&self, builder: HistogramBuilder<'_, Histogram<$type>>) -> Histogram<$type> {
                let name = builder.name.clone();
                let bounds = builder.boundaries.clone();
                let mut inner = like!(self.meter.$method(builder.name), builder);
                inner.boundaries = builder.boundaries;
                let inner = inner.build();
                if self.exemplars.is_recorded_elsewhere(&name) {
                    return inner;
                }
                let bounds = bounds.as_deref().unwrap_or(&DEFAULT_BOUNDS);
                Histogram::new(self.with_exemplars::<_, $type>(inner, name, bounds))
            }
        )+
    };
}

impl InstrumentProvider for Instruments {
    synchronous! {
        u64_counter, Counter<u64>;
        f64_counter, Counter<f64>;
        i64_up_down_counter, UpDownCounter<i64>;
        f64_up_down_counter, UpDownCounter<f64>;
        u64_gauge, Gauge<u64>;
        i64_gauge, Gauge<i64>;
        f64_gauge, Gauge<f64>;
    }

    asynchronous! {
        u64_observable_counter, ObservableCounter<u64>;
        f64_observable_counter, ObservableCounter<f64>;
        i64_observable_up_down_counter, ObservableUpDownCounter<i64>;
        f64_observable_up_down_counter, ObservableUpDownCounter<f64>;
        u64_observable_gauge, ObservableGauge<u64>;
        i64_observable_gauge, ObservableGauge<i64>;
        f64_observable_gauge, ObservableGauge<f64>;
    }

    histograms! {
        f64_histogram, f64;
        u64_histogram, u64;
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
    use opentelemetry_sdk::metrics::Temporality;
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::reader::MetricReader;

    use super::*;
    use crate::exemplar::{ExemplarFilter, ExemplarReader};
    use crate::export::QueueMetricReader;
    use crate::points::{metrics_of, visit_points};

    #[test]
    fn every_synchronous_instrument_has_exemplars() {
        let reader = QueueMetricReader::new(Temporality::Cumulative);
        let exemplars = Exemplars::new(ExemplarFilter::TraceBased);
        let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
        let meter = ExemplarMeterProvider::new(provider.clone(), exemplars.clone()).meter("test");
        let measure = || {
            let attributes = [KeyValue::new("k", 1)];
            meter.u64_counter("counter").build().add(1, &attributes);
            meter.f64_counter("f64_counter").build().add(1.5, &attributes);
            meter.u64_counter("bound").build().bind(&attributes).add(1);
            meter.i64_up_down_counter("up_down").build().add(-1, &attributes);
            meter
                .f64_up_down_counter("f64_up_down")
                .build()
                .add(-1.5, &attributes);
            meter.u64_gauge("gauge").build().record(1, &attributes);
            meter.i64_gauge("i64_gauge").build().record(-1, &attributes);
            meter.f64_gauge("f64_gauge").build().record(1.5, &attributes);
            #[expect(clippy::disallowed_methods, reason = "the instruments under test")]
            let histograms = (
                meter.f64_histogram("f64_histogram"),
                meter.u64_histogram("histogram"),
            );
            histograms.0.build().record(1.5, &attributes);
            histograms.1.build().record(7, &attributes);
        };
        let sampled = SpanContext::new(
            TraceId::from(7),
            SpanId::from(8),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let of_measurements_in = |cx: Context| {
            let attached = cx.attach();
            measure();
            drop(attached);
            let mut collected = ResourceMetrics::default();
            reader.collect(&mut collected).unwrap();
            let mut request = ExportMetricsServiceRequest::from(&collected);
            exemplars.attach(&mut request, ExemplarReader::Push);
            let mut found = Vec::new();
            for metric in metrics_of(&mut request) {
                let name = metric.name.clone();
                visit_points(metric, |_, exemplars| {
                    found.extend(exemplars.iter().map(|exemplar| {
                        assert_eq!(exemplar.span_id, SpanId::from(8).to_bytes());
                        (name.clone(), exemplar.value)
                    }));
                });
            }
            found.sort_by(|one, other| one.0.cmp(&other.0));
            found
        };
        let (int, double) = (ExemplarValue::AsInt, ExemplarValue::AsDouble);
        let expected = [
            ("bound", int(1)),
            ("counter", int(1)),
            ("f64_counter", double(1.5)),
            ("f64_gauge", double(1.5)),
            ("f64_histogram", double(1.5)),
            ("f64_up_down", double(-1.5)),
            ("gauge", int(1)),
            ("histogram", int(7)),
            ("i64_gauge", int(-1)),
            ("up_down", int(-1)),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), Some(value)));
        assert_eq!(
            of_measurements_in(Context::new().with_remote_span_context(sampled)),
            expected
        );
        assert_eq!(of_measurements_in(Context::new()), []);
    }
}
