//! Exemplars: measurements that link a data point, or the bucket of a histogram, to a trace. The Rust SDK records none,
//! so measurements are offered to a reservoir here, and [`Exemplars::attach`] writes the selected measurements into
//! the metrics before export. Implements the filters and the aligned histogram bucket reservoir of the
//! section "Exemplar" in the OpenTelemetry [metrics SDK specification] 1.5x.
//!
//! [metrics SDK specification]: https://opentelemetry.io/docs/specs/otel/metrics/sdk/#exemplar

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;

use crate::points::{identity, metrics_of, visit_points};

/// Maximum number of attribute sets of one histogram that have exemplars. The SDK keeps 2,000 sets.
pub(crate) const MAX_RESERVOIRS: usize = 512;

/// Condition for a measurement to become an exemplar.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ExemplarFilter {
    /// All measurements.
    AlwaysOn,
    /// No measurement.
    AlwaysOff,
    /// Measurements in a sampled span.
    #[default]
    TraceBased,
}

impl ExemplarFilter {
    fn admits(self, span: &SpanContext) -> bool {
        match self {
            Self::AlwaysOff => false,
            Self::TraceBased => span.is_sampled() && span.is_valid(),
            Self::AlwaysOn => true,
        }
    }
}

/// Exemplars of a pipeline's instruments, passed to [`DurationHistogram::new`](crate::DurationHistogram::new) and to
/// [`ExemplarMeterProvider::new`](crate::ExemplarMeterProvider::new); cheap to clone.
#[derive(Clone, Debug)]
pub struct Exemplars {
    filter: ExemplarFilter,
    /// Reservoirs by the name of the instrument.
    instruments: Arc<Mutex<BTreeMap<Cow<'static, str>, Arc<Reservoirs>>>>,
    /// Whether each reader exists.
    readers: Arc<[AtomicBool; 2]>,
}

/// A user of the exemplars. What one takes out of the reservoirs is kept for the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ExemplarReader {
    /// The export, which gets each exemplar once.
    Push,
    /// A scraped server, which gets the last exemplar of each bucket every time.
    Pull,
}

impl Exemplars {
    pub(crate) fn new(filter: ExemplarFilter) -> Self {
        Self {
            filter,
            instruments: Arc::default(),
            readers: Arc::default(),
        }
    }

    /// Keeps the exemplars for `reader`, too.
    pub(crate) fn add_reader(&self, reader: ExemplarReader) {
        self.readers[reader as usize].store(true, Ordering::Relaxed);
    }

    /// Returns the reservoirs of the instrument `name`, with one exemplar for each bucket between `bounds`.
    pub(crate) fn reservoirs(
        &self,
        name: impl Into<Cow<'static, str>>,
        bounds: &[f64],
        is_integer: bool,
    ) -> Arc<Reservoirs> {
        let mut instruments = lock(&self.instruments);
        let reservoirs = instruments.entry(name.into()).or_insert_with(|| {
            Arc::new(Reservoirs {
                filter: self.filter,
                bounds: bounds.into(),
                is_integer,
                is_explicit: AtomicBool::new(false),
                opened: Mutex::default(),
                kept: Mutex::default(),
            })
        });
        Arc::clone(reservoirs)
    }

    /// Whether the measurements of the histogram `name` are offered together with their span.
    pub(crate) fn is_recorded_elsewhere(&self, name: &str) -> bool {
        let instruments = lock(&self.instruments);
        let reservoirs = instruments.get(name);
        reservoirs.is_some_and(|reservoirs| reservoirs.is_explicit.load(Ordering::Relaxed))
    }

    /// Writes the exemplars kept since the last call into the data points of `request` that have the
    /// same name and attributes, and empties the reservoirs. Must be called before the attributes of the
    /// points are changed.
    pub(crate) fn attach(&self, request: &mut ExportMetricsServiceRequest, reader: ExemplarReader) {
        let is_shared = self.readers.iter().all(|reader| reader.load(Ordering::Relaxed));
        let instruments = lock(&self.instruments).clone();
        for metric in metrics_of(request) {
            let Some(reservoirs) = instruments.get(metric.name.as_str()) else {
                continue;
            };
            let mut taken = reservoirs.take_for(reader, is_shared);
            visit_points(metric, |attributes, exemplars| {
                *exemplars = taken.remove(&identity(attributes)).unwrap_or_default();
            });
        }
    }
}

/// The reservoirs of one instrument: one for each set of attributes, up to [`MAX_RESERVOIRS`].
#[derive(Debug)]
pub(crate) struct Reservoirs {
    filter: ExemplarFilter,
    bounds: Arc<[f64]>,
    /// Whether the instrument measures integers.
    is_integer: bool,
    /// Whether measurements come with their span, instead of that of the current context.
    is_explicit: AtomicBool,
    opened: Mutex<Vec<Arc<Reservoir>>>,
    /// Exemplars for each reader that are no longer in the reservoirs.
    kept: Mutex<[Taken; 2]>,
}

/// Exemplars by the attributes of their point.
type Taken = HashMap<Vec<u8>, Vec<Exemplar>>;

impl Reservoirs {
    /// Declares that measurements come with their span.
    pub(crate) fn set_explicit(&self) {
        self.is_explicit.store(true, Ordering::Relaxed);
    }

    pub(crate) fn admits(&self, span: &SpanContext) -> bool {
        self.filter.admits(span)
    }

    /// Returns the reservoir for measurements with `attributes`, or `None` if the limit is reached.
    pub(crate) fn open(&self, attributes: &[KeyValue]) -> Option<Arc<Reservoir>> {
        let mut opened = lock(&self.opened);
        if opened.len() >= MAX_RESERVOIRS {
            return None;
        }
        let attributes: Vec<proto::KeyValue> = attributes.iter().map(Into::into).collect();
        let reservoir = Arc::new(Reservoir {
            filter: self.filter,
            identity: identity(&attributes),
            bounds: Arc::clone(&self.bounds),
            is_integer: self.is_integer,
            slots: (0..=self.bounds.len()).map(|_| Slot::default()).collect(),
        });
        opened.push(Arc::clone(&reservoir));
        Some(reservoir)
    }

    /// Returns the exemplars for `reader`, and keeps those out of the reservoirs for the other one if both exist.
    fn take_for(&self, reader: ExemplarReader, is_shared: bool) -> Taken {
        let taken = self.take();
        if !is_shared && reader == ExemplarReader::Push {
            return taken;
        }
        let mut kept = lock(&self.kept);
        self.keep(&mut kept[reader as usize], &taken);
        if is_shared {
            self.keep(&mut kept[1 - reader as usize], &taken);
        }
        match reader {
            ExemplarReader::Push => std::mem::take(&mut kept[0]),
            ExemplarReader::Pull => kept[1].clone(),
        }
    }

    /// Adds the exemplars to `kept`, one per bucket.
    fn keep(&self, kept: &mut Taken, taken: &Taken) {
        let bucket = |exemplar: &Exemplar| {
            let value = match exemplar.value {
                Some(Value::AsDouble(value)) => value,
                Some(Value::AsInt(value)) => value as f64,
                None => f64::NAN,
            };
            self.bounds.partition_point(|bound| *bound < value)
        };
        for (attributes, exemplars) in taken {
            let kept = kept.entry(attributes.clone()).or_default();
            for exemplar in exemplars {
                kept.retain(|old| bucket(old) != bucket(exemplar));
                kept.push(exemplar.clone());
            }
        }
    }

    /// Removes and returns the exemplars, by attributes.
    fn take(&self) -> Taken {
        let opened = lock(&self.opened);
        let kept = opened.iter().filter_map(|reservoir| {
            let exemplars = reservoir.take();
            (!exemplars.is_empty()).then(|| (reservoir.identity.clone(), exemplars))
        });
        kept.collect()
    }
}

/// A random sample of one measurement per bucket since the last collection. All measurements of a bucket have
/// the same probability.
#[derive(Debug)]
pub(crate) struct Reservoir {
    filter: ExemplarFilter,
    identity: Vec<u8>,
    bounds: Arc<[f64]>,
    is_integer: bool,
    /// Exemplars by bucket; the last bucket is above all bounds.
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Measurements offered since the last collection.
    offered: AtomicU32,
    kept: Mutex<Option<Measurement>>,
}

#[derive(Debug)]
struct Measurement {
    value: f64,
    at: SystemTime,
    trace_id: TraceId,
    span_id: SpanId,
}

impl Reservoir {
    /// Offers a measurement made in `span`. Never blocks: if the slot is locked, the measurement is not kept.
    pub(crate) fn offer(&self, value: f64, span: &SpanContext) {
        if self.filter.admits(span) {
            self.sample(value, span);
        }
    }

    fn sample(&self, value: f64, span: &SpanContext) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let slot = &self.slots[bucket];
        let before = slot.offered.fetch_add(1, Ordering::Relaxed);
        if !is_chosen(random(span.span_id(), value, before), before) {
            return;
        }
        if let Ok(mut kept) = slot.kept.try_lock() {
            *kept = Some(Measurement {
                value,
                at: SystemTime::now(),
                trace_id: span.trace_id(),
                span_id: span.span_id(),
            });
        }
    }

    fn take(&self) -> Vec<Exemplar> {
        let offered = self
            .slots
            .iter()
            .filter(|slot| slot.offered.swap(0, Ordering::Relaxed) > 0);
        let kept = offered.filter_map(|slot| lock(&slot.kept).take());
        kept.map(|measurement| measurement.into_exemplar(self.is_integer))
            .collect()
    }
}

impl Measurement {
    fn into_exemplar(self, is_integer: bool) -> Exemplar {
        let since_epoch = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (trace_id, span_id) = if self.trace_id == TraceId::INVALID {
            Default::default()
        } else {
            (
                self.trace_id.to_bytes().to_vec(),
                self.span_id.to_bytes().to_vec(),
            )
        };
        Exemplar {
            // No view filters attributes, so the data point has all of them.
            filtered_attributes: Vec::new(),
            time_unix_nano: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            span_id,
            trace_id,
            value: Some(if is_integer {
                Value::AsInt(self.value as i64)
            } else {
                Value::AsDouble(self.value)
            }),
        }
    }
}

/// Returns whether a measurement replaces the current one after `before` others were offered. The probability
/// is `1 / (before + 1)`, which gives all measurements the same final probability.
fn is_chosen(random: u64, before: u32) -> bool {
    (u128::from(random) * (u128::from(before) + 1)) >> 64 == 0
}

/// Returns a pseudo-random number. Span ids are random; the other arguments distinguish the measurements of
/// one span.
fn random(span_id: SpanId, value: f64, before: u32) -> u64 {
    let input = value.to_bits() ^ u64::from(before).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = u64::from_ne_bytes(span_id.to_bytes()) ^ input;
    random = (random ^ (random >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    random = (random ^ (random >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    random ^ (random >> 32)
}

/// Locks `mutex`, ignoring poisoning: no code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry::metrics::MeterProvider;
    use opentelemetry::trace::{TraceFlags, TraceState};
    use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric::Data};
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::reader::MetricReader;
    use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider, Temporality};

    use super::*;
    use crate::histogram::DurationHistogram;

    const BOUNDS: [f64; 3] = [0.01, 0.1, 1.0];

    fn span(id: u64, flags: TraceFlags) -> SpanContext {
        SpanContext::new(
            TraceId::from(u128::from(id) << 64 | 7),
            SpanId::from(id),
            flags,
            false,
            TraceState::default(),
        )
    }

    fn sampled(id: u64) -> SpanContext {
        span(id, TraceFlags::SAMPLED)
    }

    /// A histogram and the reader that collects it.
    struct Fixture {
        _provider: SdkMeterProvider,
        reader: Arc<ManualReader>,
        durations: DurationHistogram,
        exemplars: Exemplars,
    }

    impl Fixture {
        fn new(name: &'static str, temporality: Temporality) -> Self {
            let reader = Arc::new(ManualReader::builder().with_temporality(temporality).build());
            let provider = SdkMeterProvider::builder()
                .with_reader(Shared(Arc::clone(&reader)))
                .build();
            let exemplars = Exemplars::new(ExemplarFilter::TraceBased);
            let durations = DurationHistogram::new(&provider.meter("test"), &exemplars, name, "", &BOUNDS);
            Self {
                _provider: provider,
                reader,
                durations,
                exemplars,
            }
        }

        fn collect(&self) -> Vec<HistogramDataPoint> {
            let mut collected = ResourceMetrics::default();
            self.reader.collect(&mut collected).unwrap();
            let mut request = ExportMetricsServiceRequest::from(&collected);
            self.exemplars.attach(&mut request, ExemplarReader::Push);
            let metrics = request
                .resource_metrics
                .into_iter()
                .flat_map(|resource| resource.scope_metrics)
                .flat_map(|scope| scope.metrics);
            metrics
                .flat_map(|metric| match metric.data {
                    Some(Data::Histogram(histogram)) => histogram.data_points,
                    other => panic!("{other:?}"),
                })
                .collect()
        }
    }

    /// A reader that the provider and the test share.
    #[derive(Debug)]
    struct Shared(Arc<ManualReader>);

    impl MetricReader for Shared {
        fn register_pipeline(&self, pipeline: std::sync::Weak<opentelemetry_sdk::metrics::Pipeline>) {
            self.0.register_pipeline(pipeline);
        }

        fn collect(&self, metrics: &mut ResourceMetrics) -> opentelemetry_sdk::error::OTelSdkResult {
            self.0.collect(metrics)
        }

        fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
            self.0.force_flush()
        }

        fn shutdown_with_timeout(
            &self,
            timeout: std::time::Duration,
        ) -> opentelemetry_sdk::error::OTelSdkResult {
            self.0.shutdown_with_timeout(timeout)
        }

        fn temporality(&self, kind: opentelemetry_sdk::metrics::InstrumentKind) -> Temporality {
            self.0.temporality(kind)
        }
    }

    fn reservoir() -> Arc<Reservoir> {
        let exemplars = Exemplars::new(ExemplarFilter::TraceBased);
        exemplars
            .reservoirs("exemplar", &BOUNDS, false)
            .open(&[])
            .unwrap()
    }

    fn values(point: &HistogramDataPoint) -> Vec<f64> {
        let values = point.exemplars.iter().map(|exemplar| match exemplar.value {
            Some(Value::AsDouble(value)) => value,
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    #[test]
    fn each_bucket_of_each_attribute_set_has_one_exemplar_which_is_exported_once() {
        for (name, temporality) in [
            ("exemplar.cumulative", Temporality::Cumulative),
            ("exemplar.delta", Temporality::Delta),
        ] {
            let fixture = Fixture::new(name, temporality);
            let (home, post) = (
                [KeyValue::new("page", "home"), KeyValue::new("status", 200)],
                [KeyValue::new("status", 201), KeyValue::new("page", "post")],
            );
            for (seconds, attributes, id) in [
                (0.005, &home, 1),
                (0.007, &home, 2),
                // The upper bound belongs to its bucket.
                (0.01, &home, 3),
                (0.5, &home, 4),
                (70.0, &home, 5),
                (0.05, &post, 6),
            ] {
                fixture.durations.record(seconds, attributes, &sampled(id));
            }
            let points = fixture.collect();
            assert_eq!(points.len(), 2);
            for point in &points {
                let of_home = point.count == 5;
                let exemplars: BTreeSet<u64> = point
                    .exemplars
                    .iter()
                    .map(|exemplar| {
                        let id = u64::from_be_bytes(exemplar.span_id.clone().try_into().unwrap());
                        let expected = sampled(id);
                        assert_eq!(exemplar.trace_id, expected.trace_id().to_bytes());
                        assert!(exemplar.filtered_attributes.is_empty());
                        assert!(exemplar.time_unix_nano > 1_700_000_000_000_000_000);
                        id
                    })
                    .collect();
                if of_home {
                    let expected = values(point);
                    assert_eq!(expected.len(), 3);
                    assert!(expected[0] <= 0.01);
                    assert_eq!(expected[1..], [0.5, 70.0]);
                    assert!(exemplars.is_superset(&BTreeSet::from([4, 5])));
                } else {
                    assert_eq!(point.count, 1);
                    assert_eq!(exemplars, BTreeSet::from([6]));
                }
            }
            fixture.durations.record(0.02, &post, &sampled(9));
            let exemplars: Vec<f64> = fixture.collect().iter().flat_map(values).collect();
            assert_eq!(exemplars, [0.02], "{temporality:?}");
        }
    }

    #[test]
    fn an_unsampled_span_has_no_exemplar() {
        let fixture = Fixture::new("exemplar.unsampled", Temporality::Cumulative);
        fixture
            .durations
            .record(0.5, &[], &span(1, TraceFlags::default()));
        fixture.durations.record(0.6, &[], &SpanContext::empty_context());
        let points = fixture.collect();
        assert_eq!(points[0].count, 2);
        assert_eq!(points[0].exemplars, []);
    }

    #[test]
    fn the_filter_decides_by_the_span() {
        let spans = [
            sampled(1),
            span(1, TraceFlags::default()),
            SpanContext::empty_context(),
        ];
        for (filter, admitted) in [
            (ExemplarFilter::AlwaysOn, [true, true, true]),
            (ExemplarFilter::TraceBased, [true, false, false]),
            (ExemplarFilter::AlwaysOff, [false, false, false]),
        ] {
            assert_eq!(spans.each_ref().map(|span| filter.admits(span)), admitted);
        }
    }

    #[test]
    fn an_exemplar_outside_of_a_span_has_no_ids() {
        let reservoir = reservoir();
        reservoir.sample(0.2, &SpanContext::empty_context());
        let exemplars = reservoir.take();
        assert_eq!(exemplars.len(), 1);
        assert!(exemplars[0].trace_id.is_empty() && exemplars[0].span_id.is_empty());
    }

    #[test]
    fn every_measurement_has_the_same_probability() {
        let reservoir = reservoir();
        let mut kept = [0_u32; 10];
        // The hardest case: all measurements are made in one span, whose id is the only random input.
        for round in 1..=10_000_u64 {
            let span = sampled(round.wrapping_mul(0x1234_5678_9abc_def1));
            for measurement in 0..10 {
                reservoir.sample(f64::from(measurement) / 1_000.0, &span);
            }
            let exemplars = reservoir.take();
            let Some(Value::AsDouble(value)) = exemplars[0].value else {
                panic!("{exemplars:?}")
            };
            kept[(value * 1_000.0).round() as usize] += 1;
        }
        for count in kept {
            assert!((850..1_150).contains(&count), "{kept:?}");
        }
    }

    #[test]
    fn both_readers_get_the_exemplars() {
        let reservoirs = Exemplars::new(ExemplarFilter::AlwaysOn).reservoirs("shared", &[1.0], false);
        let reservoir = reservoirs.open(&[]).unwrap();
        let values = |reader| -> Vec<f64> {
            let taken = reservoirs.take_for(reader, true);
            let values = taken
                .into_values()
                .flatten()
                .map(|exemplar| match exemplar.value {
                    Some(Value::AsDouble(value)) => value,
                    other => panic!("{other:?}"),
                });
            values.collect()
        };
        reservoir.sample(0.5, &sampled(1));
        reservoir.sample(2.0, &sampled(2));
        assert_eq!(values(ExemplarReader::Pull), [0.5, 2.0]);
        reservoir.sample(0.6, &sampled(3));
        assert_eq!(values(ExemplarReader::Push), [2.0, 0.6]);
        assert_eq!(values(ExemplarReader::Push), [0.0; 0]);
        assert_eq!(values(ExemplarReader::Pull), [2.0, 0.6]);
        assert_eq!(values(ExemplarReader::Pull), [2.0, 0.6]);
    }

    #[test]
    fn attribute_sets_beyond_the_limit_are_counted_without_exemplars() {
        let fixture = Fixture::new("exemplar.limit", Temporality::Cumulative);
        let sets = MAX_RESERVOIRS + 10;
        for id in 0..sets {
            let attributes = [KeyValue::new("id", i64::try_from(id).unwrap())];
            fixture
                .durations
                .record(0.5, &attributes, &sampled(id as u64 + 1));
        }
        let points = fixture.collect();
        assert_eq!(points.len(), sets);
        assert_eq!(
            points.iter().filter(|point| !point.exemplars.is_empty()).count(),
            MAX_RESERVOIRS
        );
    }

    #[test]
    fn a_measurement_does_not_block_on_a_locked_slot() {
        let reservoir = reservoir();
        reservoir.sample(0.005, &sampled(1));
        let busy = lock(&reservoir.slots[0].kept);
        // Returns immediately without keeping the measurement.
        for id in 2..100 {
            reservoir.sample(0.006, &sampled(id));
        }
        drop(busy);
        let exemplars = reservoir.take();
        assert_eq!(exemplars[0].value, Some(Value::AsDouble(0.005)));
    }
}
