use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{
    Span as _, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{self as proto, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};

use super::*;
use crate::destination::CustomExporter;
use crate::exemplar::ExemplarFilter;
use crate::export::QueueMetricReader;
use crate::pipeline::Pipeline;
use crate::points::metrics_of;
use crate::recorder::SpanStart;
use crate::transport::Retry;

/// A meter whose instruments a test reads.
struct Metrics {
    reader: QueueMetricReader,
    provider: SdkMeterProvider,
}

impl Metrics {
    fn new() -> Self {
        let reader = QueueMetricReader::new(Temporality::Cumulative);
        let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
        Self { reader, provider }
    }

    fn meter(&self) -> Meter {
        self.provider.meter("test")
    }

    /// Returns the points of a metric: the values of `keys`, and the number or the count.
    fn points(&self, name: &str, keys: &[&str]) -> BTreeMap<String, i64> {
        let mut collected = ResourceMetrics::default();
        self.reader.collect(&mut collected).unwrap();
        let mut request = ExportMetricsServiceRequest::from(&collected);
        let data = metrics_of(&mut request)
            .find(|metric| metric.name == name)
            .and_then(|metric| metric.data.take());
        let shown = |attributes: &[proto::KeyValue]| {
            let value = |key: &&str| {
                let attribute = attributes.iter().find(|attribute| attribute.key == **key)?;
                match attribute.value.clone()?.value? {
                    any_value::Value::StringValue(text) => Some(text),
                    other => panic!("{other:?}"),
                }
            };
            keys.iter().filter_map(value).collect::<Vec<_>>().join(" ")
        };
        match data {
            Some(Data::Sum(sum)) => {
                let points = sum.data_points.iter().map(|point| match point.value {
                    Some(number_data_point::Value::AsInt(number)) => (shown(&point.attributes), number),
                    _ => panic!("{point:?}"),
                });
                points.collect()
            }
            Some(Data::Histogram(histogram)) => {
                let points = histogram.data_points.iter();
                points
                    .map(|point| (shown(&point.attributes), point.count.cast_signed()))
                    .collect()
            }
            None => BTreeMap::new(),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the expected points.
fn expected<const N: usize>(points: [(&str, i64); N]) -> BTreeMap<String, i64> {
    BTreeMap::from(points.map(|(attributes, number)| (attributes.to_owned(), number)))
}

fn without_exemplars() -> Exemplars {
    Exemplars::new(ExemplarFilter::AlwaysOff)
}

#[test]
fn exported_items_are_counted_by_result() {
    let metrics = Metrics::new();
    let destination = CustomExporter::new("test", |_| Ok(())).into();
    let exported = Arc::new(ExportCounts::new(Signal::Traces, &destination));
    exported.observe(&metrics.meter(), &without_exemplars());
    let accepted = |rejected| {
        Ok(Accepted {
            rejected,
            message: None,
        })
    };
    let failed = Err(SendError {
        error_type: "503".into(),
        message: String::new(),
        retry: Retry::Never,
    });
    for result in [accepted(0), accepted(3), accepted(100), failed] {
        exported.record(&result, 10, Duration::ZERO);
    }
    assert_eq!(
        metrics.points("otel.sdk.exporter.span.exported", &["error.type"]),
        expected([("", 17), ("503", 10), ("rejected", 13)])
    );
}

/// Returns the context of a parent.
fn parent(is_remote: bool, flags: TraceFlags) -> Context {
    let (trace_id, span_id) = (TraceId::from(7), 1.into());
    Context::new().with_remote_span_context(SpanContext::new(
        trace_id,
        span_id,
        flags,
        is_remote,
        TraceState::NONE,
    ))
}

#[test]
fn started_and_live_spans_are_counted_by_parent_and_decision() {
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", |_| Ok(())))
        .start();
    let metrics = Metrics::new();
    pipeline.observe(&metrics.meter());
    let started = || {
        let keys = ["otel.span.parent.origin", "otel.span.sampling_result"];
        metrics.points("otel.sdk.span.started", &keys)
    };
    let live = || metrics.points("otel.sdk.span.live", &["otel.span.sampling_result"]);

    let tracer = pipeline
        .recorder()
        .tracer(InstrumentationScope::builder("test").build());
    let start = |parent: &Context| tracer.start(parent, SpanStart::new("a", SpanKind::Internal), |_| ());
    let mut open = vec![
        start(&Context::new()),
        start(&parent(false, TraceFlags::SAMPLED)),
        start(&parent(true, TraceFlags::SAMPLED)),
        start(&parent(true, TraceFlags::NOT_SAMPLED)),
    ];
    let all = [
        ("local RECORD_AND_SAMPLE", 1),
        ("none RECORD_AND_SAMPLE", 1),
        ("remote DROP", 1),
        ("remote RECORD_AND_SAMPLE", 1),
    ];
    assert_eq!(started(), expected(all));
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 3), ("RECORD_ONLY", 0)]));
    open[0].end();
    open.pop();
    open.pop();
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 1), ("RECORD_ONLY", 0)]));
    drop(open);
    assert_eq!(started(), expected(all));
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 0), ("RECORD_ONLY", 0)]));
}

/// Samples by the name of the span.
#[derive(Clone, Debug)]
struct ByName;

impl ShouldSample for ByName {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: match name {
                "drop" => SamplingDecision::Drop,
                "record" => SamplingDecision::RecordOnly,
                _ => SamplingDecision::RecordAndSample,
            },
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

#[test]
fn spans_of_the_sdk_are_counted_once() {
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", |_| Ok(())))
        .sampler(Sampler::AlwaysOff)
        .start();
    let metrics = Metrics::new();
    pipeline.observe(&metrics.meter());
    let provider = SdkTracerProvider::builder()
        .with_sampler(pipeline.recorder().counting(ByName))
        .with_span_processor(pipeline.span_processor().unwrap())
        .build();
    let recorder = pipeline.recorder().with_provider(provider.clone());
    let own = recorder.tracer(InstrumentationScope::builder("test").build());
    let cx = Context::new();
    let mut open = vec![own.start(&cx, SpanStart::new("sample", SpanKind::Internal), |_| ())];
    let sdk = provider.tracer("test");
    let mut of_sdk: Vec<_> = ["drop", "record", "sample"]
        .map(|name| sdk.start_with_context(name, &cx))
        .into();
    assert_eq!(
        metrics.points("otel.sdk.span.started", &["otel.span.sampling_result"]),
        expected([("DROP", 1), ("RECORD_AND_SAMPLE", 2), ("RECORD_ONLY", 1)])
    );
    let live = || metrics.points("otel.sdk.span.live", &["otel.span.sampling_result"]);
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 2), ("RECORD_ONLY", 1)]));
    of_sdk.iter_mut().for_each(|span| span.end());
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 1), ("RECORD_ONLY", 0)]));
    open.clear();
    assert_eq!(live(), expected([("RECORD_AND_SAMPLE", 0), ("RECORD_ONLY", 0)]));
}

#[test]
fn items_are_in_flight_while_they_are_exported() {
    const NAME: &str = "otel.sdk.exporter.span.inflight";
    let metrics = Arc::new(Metrics::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (observed, kept) = (Arc::clone(&metrics), Arc::clone(&seen));
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", move |_| {
            kept.lock().unwrap().push(observed.points(NAME, &[]));
            Ok(())
        }))
        .start();
    pipeline.observe(&metrics.meter());
    let tracer = pipeline
        .recorder()
        .tracer(InstrumentationScope::builder("test").build());
    for _ in 0..3 {
        tracer.start(&Context::new(), SpanStart::new("a", SpanKind::Internal), |_| ());
    }
    pipeline.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [expected([("", 3)])]);
    assert_eq!(metrics.points(NAME, &[]), expected([("", 0)]));
}

#[test]
fn items_of_an_export_that_panics_are_not_in_flight() {
    let destination = CustomExporter::new("test", |_| Ok(())).into();
    let counts = Arc::new(ExportCounts::new(Signal::Logs, &destination));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut in_flight = counts.begin(10);
        in_flight.finish(3);
        assert_eq!(counts.in_flight.load(Ordering::Relaxed), 7);
        panic!("expected by the test");
    }));
    assert!(panicked.is_err());
    assert_eq!(counts.in_flight.load(Ordering::Relaxed), 0);
}

#[test]
fn collections_are_measured_by_result() {
    let metrics = Metrics::new();
    let times = CollectionTimes::new("periodic_metric_reader");
    times.measure(|| Ok(())).unwrap();
    times.observe(&metrics.meter(), &without_exemplars());
    times.measure(|| Ok(())).unwrap();
    times.measure(|| Err(OTelSdkError::AlreadyShutdown)).unwrap_err();
    let panicking = || times.measure(|| panic!("expected by the test"));
    catch_unwind(AssertUnwindSafe(panicking)).unwrap_err();
    let keys = ["otel.component.type", "error.type"];
    assert_eq!(
        metrics.points("otel.sdk.metric_reader.collection.duration", &keys),
        expected([
            ("periodic_metric_reader", 1),
            ("periodic_metric_reader already_shutdown", 1),
            ("periodic_metric_reader panic", 1)
        ])
    );
}
