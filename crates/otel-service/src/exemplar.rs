//! Exemplars: measurements that lead from a histogram's bucket to a trace. The Rust SDK records none, so every duration
//! is offered to a reservoir here, and [`attach`] writes what was kept into the metrics on their way out. Follows
//! "Exemplar" of the OpenTelemetry [metrics SDK specification] 1.5x: the filters, and the aligned histogram bucket
//! reservoir.
//!
//! [metrics SDK specification]: https://opentelemetry.io/docs/specs/otel/metrics/sdk/#exemplar

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric};
use prost::Message;

use crate::config::ExemplarFilter;
use crate::metrics::SERIES_LIMIT;

static FILTER: AtomicU8 = AtomicU8::new(ExemplarFilter::TraceBased as u8);

/// Where a bucket has had so many measurements, one in [`STRIDE`] is counted and may be kept, for all of them: counting
/// takes the memory that is counted in from the other processors.
const EACH_COUNTED: u32 = 64;
const STRIDE: u32 = 16;

/// The reservoirs of every histogram, by its name.
static HISTOGRAMS: Mutex<BTreeMap<&'static str, Arc<Reservoirs>>> = Mutex::new(BTreeMap::new());

/// Sets the filter of the process.
pub(crate) fn set_filter(filter: ExemplarFilter) {
    FILTER.store(filter as u8, Ordering::Relaxed);
}

impl ExemplarFilter {
    fn in_force() -> Self {
        match FILTER.load(Ordering::Relaxed) {
            off if off == Self::AlwaysOff as u8 => Self::AlwaysOff,
            on if on == Self::AlwaysOn as u8 => Self::AlwaysOn,
            _ => Self::TraceBased,
        }
    }

    fn admits(self, span: &SpanContext) -> bool {
        match self {
            Self::AlwaysOff => false,
            Self::TraceBased => span.is_sampled() && span.is_valid(),
            Self::AlwaysOn => true,
        }
    }
}

/// The reservoirs of the histogram called `name`.
pub(crate) fn reservoirs(name: &'static str, bounds: &'static [f64]) -> Arc<Reservoirs> {
    let mut histograms = lock(&HISTOGRAMS);
    let made = histograms.entry(name).or_insert_with(|| {
        Arc::new(Reservoirs {
            bounds,
            opened: Mutex::default(),
        })
    });
    Arc::clone(made)
}

/// The reservoirs of one histogram: one for each set of attributes, up to [`SERIES_LIMIT`].
#[derive(Debug)]
pub(crate) struct Reservoirs {
    bounds: &'static [f64],
    opened: Mutex<Vec<Arc<Reservoir>>>,
}

impl Reservoirs {
    /// A reservoir for the measurements with `attributes`; `None` when there are too many.
    pub(crate) fn open(&self, attributes: &[KeyValue]) -> Option<Arc<Reservoir>> {
        let mut opened = lock(&self.opened);
        if opened.len() >= SERIES_LIMIT {
            return None;
        }
        let attributes: Vec<proto::KeyValue> = attributes.iter().map(Into::into).collect();
        let reservoir = Arc::new(Reservoir {
            identity: identity(&attributes),
            bounds: self.bounds,
            slots: self.bounds.iter().map(|_| Slot::default()).collect(),
            last: Slot::default(),
        });
        opened.push(Arc::clone(&reservoir));
        Some(reservoir)
    }

    /// Takes out what was kept, by attributes.
    fn take(&self) -> HashMap<Vec<u8>, Vec<Exemplar>> {
        let opened = lock(&self.opened);
        let kept = opened.iter().filter_map(|reservoir| {
            let exemplars = reservoir.take();
            (!exemplars.is_empty()).then(|| (reservoir.identity.clone(), exemplars))
        });
        kept.collect()
    }
}

/// Keeps one measurement of each bucket since metrics were last collected, any of them with the same chance.
#[derive(Debug)]
pub(crate) struct Reservoir {
    identity: Vec<u8>,
    bounds: &'static [f64],
    /// By bucket.
    slots: Box<[Slot]>,
    /// Of the bucket above all bounds.
    last: Slot,
}

#[derive(Debug, Default)]
struct Slot {
    /// Measurements offered since the last collection, roughly.
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
    /// Offers a measurement made in `span`. Never waits: one that meets another at the same bucket is not kept.
    pub(crate) fn offer(&self, value: f64, span: &SpanContext) {
        if ExemplarFilter::in_force().admits(span) {
            self.sample(value, span);
        }
    }

    fn sample(&self, value: f64, span: &SpanContext) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let slot = self.slots.get(bucket).unwrap_or(&self.last);
        let before = slot.offered.load(Ordering::Relaxed);
        let random = random(span.span_id(), value, before);
        let stands_for = if before < EACH_COUNTED { 1 } else { STRIDE };
        if !random.is_multiple_of(u64::from(stands_for)) {
            return;
        }
        slot.offered.fetch_add(stands_for, Ordering::Relaxed);
        if !is_chosen(random, before, stands_for) {
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
        let slots = self.slots.iter().chain([&self.last]);
        slots.filter_map(Slot::take).collect()
    }
}

impl Slot {
    fn take(&self) -> Option<Exemplar> {
        if self.offered.swap(0, Ordering::Relaxed) == 0 {
            return None;
        }
        lock(&self.kept).take().map(Measurement::into_exemplar)
    }
}

impl Measurement {
    fn into_exemplar(self) -> Exemplar {
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
            // Views filter no attribute out, so the point has them all.
            filtered_attributes: Vec::new(),
            time_unix_nano: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            span_id,
            trace_id,
            value: Some(Value::AsDouble(self.value)),
        }
    }
}

/// Whether a measurement that comes after `before` others and stands for so many takes their place: so many in all that
/// there are then do, so that all have the same chance in the end.
fn is_chosen(random: u64, before: u32, stands_for: u32) -> bool {
    let all = u128::from(before) + u128::from(stands_for);
    (u128::from(random) * all) >> 64 < u128::from(stands_for)
}

/// Span ids are random already, and need only be mixed for spans that measure repeatedly.
fn random(span_id: SpanId, value: f64, before: u32) -> u64 {
    let what = value.to_bits() ^ u64::from(before).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = u64::from_ne_bytes(span_id.to_bytes()) ^ what;
    random = (random ^ (random >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    random = (random ^ (random >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    random ^ (random >> 32)
}

/// Writes the exemplars kept since the last call into the histogram points of `request` that have the same name and
/// attributes, and empties the reservoirs. Must come before anything changes the points' attributes.
pub(crate) fn attach(request: &mut ExportMetricsServiceRequest) {
    let histograms = lock(&HISTOGRAMS).clone();
    let metrics = request
        .resource_metrics
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_metrics)
        .flat_map(|scope| &mut scope.metrics);
    for metric in metrics {
        if let Some(reservoirs) = histograms.get(metric.name.as_str()) {
            attach_to(metric, reservoirs);
        }
    }
}

fn attach_to(metric: &mut Metric, reservoirs: &Reservoirs) {
    let mut taken = reservoirs.take();
    match &mut metric.data {
        Some(Data::Histogram(histogram)) => {
            for point in &mut histogram.data_points {
                if let Some(exemplars) = taken.remove(&identity(&point.attributes)) {
                    point.exemplars = exemplars;
                }
            }
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            for point in &mut histogram.data_points {
                if let Some(exemplars) = taken.remove(&identity(&point.attributes)) {
                    point.exemplars = exemplars;
                }
            }
        }
        _ => {}
    }
}

/// Attributes as bytes that do not depend on their order.
fn identity(attributes: &[proto::KeyValue]) -> Vec<u8> {
    let mut sorted: Vec<&proto::KeyValue> = attributes.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    sorted
        .into_iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry::metrics::MeterProvider;
    use opentelemetry::trace::{TraceFlags, TraceState};
    use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::reader::MetricReader;
    use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider, Temporality};

    use super::*;
    use crate::metrics::Durations;

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
    struct Scene {
        _provider: SdkMeterProvider,
        reader: Arc<ManualReader>,
        durations: Durations,
    }

    impl Scene {
        fn new(name: &'static str, temporality: Temporality) -> Self {
            let reader = Arc::new(ManualReader::builder().with_temporality(temporality).build());
            let provider = SdkMeterProvider::builder()
                .with_reader(Shared(Arc::clone(&reader)))
                .build();
            let durations = Durations::new(&provider.meter("test"), name, "", &BOUNDS);
            Self {
                _provider: provider,
                reader,
                durations,
            }
        }

        fn collect(&self) -> Vec<HistogramDataPoint> {
            let mut collected = ResourceMetrics::default();
            self.reader.collect(&mut collected).unwrap();
            let mut request = ExportMetricsServiceRequest::from(&collected);
            attach(&mut request);
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

    /// The provider owns its reader; this one stays ours too.
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

    fn values(point: &HistogramDataPoint) -> Vec<f64> {
        let values = point.exemplars.iter().map(|exemplar| match exemplar.value {
            Some(Value::AsDouble(value)) => value,
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    #[test]
    fn each_bucket_of_each_attribute_set_has_one_exemplar_that_is_used_up() {
        for (name, temporality) in [
            ("exemplar.cumulative", Temporality::Cumulative),
            ("exemplar.delta", Temporality::Delta),
        ] {
            let scene = Scene::new(name, temporality);
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
                scene.durations.record(seconds, attributes, &sampled(id));
            }
            let points = scene.collect();
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
            scene.durations.record(0.02, &post, &sampled(9));
            let exemplars: Vec<f64> = scene.collect().iter().flat_map(values).collect();
            assert_eq!(exemplars, [0.02], "{temporality:?}");
        }
    }

    #[test]
    fn a_span_that_is_not_sampled_gives_no_exemplar() {
        let scene = Scene::new("exemplar.unsampled", Temporality::Cumulative);
        scene.durations.record(0.5, &[], &span(1, TraceFlags::default()));
        scene.durations.record(0.6, &[], &SpanContext::empty_context());
        let points = scene.collect();
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
    fn outside_of_a_span_an_exemplar_has_no_ids() {
        let reservoirs = reservoirs("exemplar.no.span", &BOUNDS);
        let reservoir = reservoirs.open(&[]).unwrap();
        reservoir.sample(0.2, &SpanContext::empty_context());
        let exemplars = reservoir.take();
        assert_eq!(exemplars.len(), 1);
        assert!(exemplars[0].trace_id.is_empty() && exemplars[0].span_id.is_empty());
    }

    #[test]
    fn of_many_measurements_each_has_the_same_chance() {
        let reservoirs = reservoirs("exemplar.chance", &BOUNDS);
        let reservoir = reservoirs.open(&[]).unwrap();
        let mut kept = [0_u32; 10];
        // In one span, which is the hard case: its id gives all the randomness.
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
    fn of_more_than_are_counted_each_has_the_same_chance() {
        const TENTH: u32 = 200;
        let reservoirs = reservoirs("exemplar.stride", &BOUNDS);
        let reservoir = reservoirs.open(&[]).unwrap();
        let mut kept = [0_u32; 10];
        for round in 0..5_000_u64 {
            for measurement in 0..10 * TENTH {
                let number = round * u64::from(10 * TENTH) + u64::from(measurement) + 1;
                let id = number.wrapping_mul(0x1234_5678_9abc_def1);
                reservoir.sample(f64::from(measurement) / 1_000_000.0, &sampled(id));
            }
            let exemplars = reservoir.take();
            let Some(Value::AsDouble(value)) = exemplars[0].value else {
                panic!("{exemplars:?}")
            };
            kept[((value * 1_000_000.0).round() as u32 / TENTH) as usize] += 1;
        }
        for count in kept {
            assert!((410..590).contains(&count), "{kept:?}");
        }
    }

    #[test]
    fn attribute_sets_beyond_the_limit_are_counted_without_exemplars() {
        let scene = Scene::new("exemplar.limit", Temporality::Cumulative);
        let sets = SERIES_LIMIT + 10;
        for id in 0..sets {
            let attributes = [KeyValue::new("id", i64::try_from(id).unwrap())];
            scene.durations.record(0.5, &attributes, &sampled(id as u64 + 1));
        }
        let points = scene.collect();
        assert_eq!(points.len(), sets);
        assert_eq!(
            points.iter().filter(|point| !point.exemplars.is_empty()).count(),
            SERIES_LIMIT
        );
    }

    #[test]
    fn a_measurement_does_not_wait_for_one_that_is_being_kept() {
        let reservoirs = reservoirs("exemplar.busy", &BOUNDS);
        let reservoir = reservoirs.open(&[]).unwrap();
        reservoir.sample(0.005, &sampled(1));
        let busy = lock(&reservoir.slots[0].kept);
        // Comes back, and finds its place taken.
        for id in 2..100 {
            reservoir.sample(0.006, &sampled(id));
        }
        drop(busy);
        let exemplars = reservoir.take();
        assert_eq!(exemplars[0].value, Some(Value::AsDouble(0.005)));
    }
}
