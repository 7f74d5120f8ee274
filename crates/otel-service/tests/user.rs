//! The crate as a user sees it: everything that is recorded stays in memory.
#![cfg(test)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue as Attribute;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SimpleLogProcessor};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};
use opentelemetry_sdk::trace::{Sampler, SimpleSpanProcessor, SpanData, SpanExporter, SpanProcessor};
use otel_service::instrumentation::{Instrumentation, SpanStart};
use otel_service::sampling::AlwaysRecord;
use otel_service::testing::{self, InMemory};
use otel_service::{
    Context, HttpLayer, KeyValue, LogOutput, Service, Span, SpanKind, Telemetry, TelemetryBuilder,
    context_span,
};
use otlp_recorder::Signal;
use prost::Message as _;
use tower::{Layer as _, ServiceExt as _};
use tracing_subscriber::layer::SubscriberExt as _;

const DEADLINE: Duration = Duration::from_secs(20);

fn value(attributes: &[Attribute], key: &str) -> Option<Value> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next()?.value.clone()?.value;
    assert!(found.next().is_none(), "{key} appears more than once");
    value
}

fn text(attributes: &[Attribute], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// Runs work in a trace of the telemetry of the process; returns its spans by name.
async fn spans_of(
    work: impl Future<Output = ()>,
) -> BTreeMap<String, opentelemetry_proto::tonic::trace::v1::Span> {
    let telemetry = testing::telemetry();
    let trace_id = telemetry.in_trace(work).await;
    let spans = telemetry.spans(&trace_id).into_iter();
    spans.map(|span| (span.name.clone(), span)).collect()
}

#[tokio::test]
async fn errors_of_any_type_are_recorded_without_a_wrapper() {
    let spans = spans_of(async {
        let fails = async { Err::<(), _>(anyhow::anyhow!("disk full").context("cannot save")) };
        let error = Span::internal("any").run_any(fails).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot save");
        let parsed = Span::internal("sync")
            .in_scope(|| "seven".parse::<u32>().inspect_err(otel_service::record_error));
        assert!(parsed.is_err());
        let works = async { Ok::<_, anyhow::Error>(7) };
        assert_eq!(Span::internal("fine").run_any(works).await.unwrap(), 7);
    })
    .await;
    for (name, error_type, message) in [
        ("any", "anyhow::Error", "cannot save: disk full"),
        (
            "sync",
            "core::num::error::ParseIntError",
            "invalid digit found in string",
        ),
    ] {
        let span = &spans[name];
        assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!(text(&span.attributes, "error.type"), error_type);
        assert_eq!(span.events[0].name, "exception");
        assert_eq!(text(&span.events[0].attributes, "exception.type"), error_type);
        assert_eq!(text(&span.events[0].attributes, "exception.message"), message);
    }
    let status = spans["fine"].status.clone().unwrap_or_default();
    assert_eq!(status.code(), StatusCode::Unset);
}

#[tokio::test]
async fn spans_of_every_kind_surround_code_that_is_not_asynchronous() {
    let kinds = [
        ("internal", SpanKind::Internal, Kind::Internal),
        ("server", SpanKind::Server, Kind::Server),
        ("client", SpanKind::Client, Kind::Client),
        ("producer", SpanKind::Producer, Kind::Producer),
        ("consumer", SpanKind::Consumer, Kind::Consumer),
    ];
    let spans = spans_of(async {
        for (name, kind, _) in kinds.clone() {
            // The name need not be a constant.
            Span::new(format!("of kind {name}"), kind).in_scope(|| {
                Span::internal(format!("in {name}"))
                    .in_scope(|| otel_service::set_attribute(KeyValue::new("n", 1)));
            });
        }
        let panics = || Span::internal("panics").in_scope(|| panic!("of the test"));
        assert!(std::panic::catch_unwind(panics).is_err());
        Span::internal("old").in_scope(|| otel_service::rename_span("new"));
    })
    .await;
    for (name, _, kind) in kinds {
        let outer = &spans[&format!("of kind {name}")];
        assert_eq!(outer.kind(), kind);
        let inner = &spans[&format!("in {name}")];
        assert_eq!(inner.parent_span_id, outer.span_id);
        assert_eq!(value(&inner.attributes, "n"), Some(Value::IntValue(1)));
    }
    assert_eq!(text(&spans["panics"].attributes, "error.type"), "panic");
    assert!(spans.contains_key("new") && !spans.contains_key("old"));
}

#[tokio::test]
async fn tasks_and_threads_stay_in_the_trace() {
    let telemetry = testing::telemetry();
    let work = async {
        let outer = async {
            let span = tracing::info_span!("enclosing", order = 7);
            let (task, blocking) = span.in_scope(|| {
                let work = async {
                    tracing::info!("in the task");
                    Span::internal("task").in_scope(|| ());
                };
                let blocking = || Span::internal("blocking").in_scope(|| tracing::info!("on the thread"));
                (otel_service::spawn(work), otel_service::spawn_blocking(blocking))
            });
            task.await.unwrap();
            blocking.await.unwrap();
            let context = context_span();
            let thread =
                std::thread::spawn(move || context.in_scope(|| Span::internal("thread").in_scope(|| ())));
            thread.join().unwrap();
            Ok::<_, Infallible>(())
        };
        Span::internal("outer").run(outer).await.unwrap();
    };
    let trace_id = telemetry.in_trace(work).await;
    let spans = telemetry.spans(&trace_id);
    let id = |name: &str| &spans.iter().find(|span| span.name == name).unwrap().span_id;
    let parent = |name: &str| {
        &spans
            .iter()
            .find(|span| span.name == name)
            .unwrap()
            .parent_span_id
    };
    for (child, expected) in [
        ("task", "enclosing"),
        ("blocking", "enclosing"),
        ("thread", "outer"),
    ] {
        assert_eq!(parent(child), id(expected), "{child}");
    }
    let records = telemetry.log_records(&trace_id);
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(value(&record.attributes, "order"), Some(Value::IntValue(7)));
    }
}

/// Returns the only points of a metric: its data, its unit, and the values of a sum or gauge.
fn measured(metrics: &[Metric], name: &str) -> (Data, String, Vec<f64>) {
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
    let data = metric.data.clone().unwrap();
    let points = match &data {
        Data::Sum(sum) => sum.data_points.clone(),
        Data::Gauge(gauge) => gauge.data_points.clone(),
        _ => Vec::new(),
    };
    (data, metric.unit.clone(), points.iter().map(number).collect())
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsInt(number)) => number as f64,
        Some(number_data_point::Value::AsDouble(number)) => number,
        None => panic!("{point:?}"),
    }
}

static PAID: otel_service::FloatCounter = otel_service::float_counter("user.paid", "EUR", "Paid.");
static OPEN: otel_service::UpDown = otel_service::up_down_counter("user.open", "{order}", "Open orders.");
static HEAT: otel_service::ValueGauge = otel_service::gauge("user.heat", "Cel", "Temperature.");
static SIZE: otel_service::ValueHistogram =
    otel_service::value_histogram("user.size", "By", "Sizes.", &[10.0, 1_000.0]);

#[test]
fn instruments_of_every_kind_can_be_declared() {
    let telemetry = testing::telemetry();
    PAID.add(1.5, &[]);
    PAID.add(2.0, &[]);
    OPEN.add(5, &[]);
    OPEN.add(-2, &[]);
    HEAT.set(180.0, &[]);
    HEAT.set(20.5, &[]);
    [5.0, 50.0, 5_000.0, 6_000.0]
        .iter()
        .for_each(|size| SIZE.record(*size, &[]));
    let read = |value: f64| move || vec![(value, vec![KeyValue::new("of", "user")])];
    otel_service::observe_gauge("user.level", "m", "Level.", read(1.5));
    otel_service::observe_counter("user.total", "s", "Total.", read(2.5));
    otel_service::observe_up_down_counter("user.stock", "{piece}", "Stock.", read(3.5));

    let metrics = telemetry.metrics();
    for (name, unit, kind, expected) in [
        ("user.paid", "EUR", "monotonic sum", 3.5),
        ("user.open", "{order}", "sum", 3.0),
        ("user.heat", "Cel", "gauge", 20.5),
        ("user.level", "m", "gauge", 1.5),
        ("user.total", "s", "monotonic sum", 2.5),
        ("user.stock", "{piece}", "sum", 3.5),
    ] {
        let (data, its_unit, values) = measured(&metrics, name);
        let its_kind = match data {
            Data::Sum(sum) if sum.is_monotonic => "monotonic sum",
            Data::Sum(_) => "sum",
            Data::Gauge(_) => "gauge",
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (its_kind, &*its_unit, &values[..]),
            (kind, unit, &[expected][..]),
            "{name}"
        );
    }
    let (Data::Histogram(sizes), unit, _) = measured(&metrics, "user.size") else {
        panic!("not a histogram");
    };
    assert_eq!(unit, "By");
    assert_eq!(sizes.data_points[0].explicit_bounds, [10.0, 1_000.0]);
    assert_eq!(sizes.data_points[0].bucket_counts, [1, 1, 2]);
}

#[tokio::test]
async fn the_address_of_the_client_comes_from_the_server() {
    let spans = spans_of(async {
        let connected = |parts: &http::request::Parts| parts.extensions.get::<SocketAddr>().copied();
        let layer = HttpLayer::new(|parts| Some(parts.uri.path())).peer_address(connected);
        let respond =
            tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let known = SocketAddr::from(([192, 0, 2, 7], 1234));
        for (path, address) in [("/known", Some(known)), ("/unknown", None)] {
            let mut request = Request::get(path).body(()).unwrap();
            request.extensions_mut().extend(
                address
                    .map(|address| {
                        let mut extensions = http::Extensions::new();
                        extensions.insert(address);
                        extensions
                    })
                    .unwrap_or_default(),
            );
            drop(layer.layer(respond).oneshot(request).await.unwrap());
        }
    })
    .await;
    assert_eq!(
        text(&spans["GET /known"].attributes, "client.address"),
        "192.0.2.7"
    );
    assert_eq!(value(&spans["GET /unknown"].attributes, "client.address"), None);
}

/// Scopes of the spans named `name`: name, version, schema URL of the group, and attributes.
fn scopes_of(memory: &InMemory, name: &str) -> Vec<(String, String, String, usize)> {
    let requests = memory.requests(Signal::Traces).into_iter();
    let groups = requests
        .map(|request| ExportTraceServiceRequest::decode(request.protobuf().clone()).unwrap())
        .flat_map(|request| request.resource_spans)
        .flat_map(|group| group.scope_spans);
    groups
        .filter(|group| group.spans.iter().any(|span| span.name == name))
        .map(|group| {
            let scope = group.scope.unwrap_or_default();
            (
                scope.name,
                scope.version,
                group.schema_url,
                scope.attributes.len(),
            )
        })
        .collect()
}

#[test]
fn spans_have_the_scope_that_created_them() {
    static CACHE: Instrumentation =
        Instrumentation::new("my-cache", "2.1.0").with_schema_url("https://opentelemetry.io/schemas/1.44.0");
    let telemetry = testing::telemetry();
    Span::internal("of the service").in_scope(|| ());
    let lookup = CACHE.start(
        &Context::new(),
        SpanStart::new("of the library", SpanKind::Client),
        |_| (),
    );
    lookup.span().end();
    let scope = InstrumentationScope::builder("of the API")
        .with_version("3")
        .with_schema_url("https://example.com/schema")
        .with_attributes([KeyValue::new("edition", "blue")]);
    opentelemetry::global::tracer_with_scope(scope.build())
        .start("of the API")
        .end();
    let memory = telemetry.flushed();
    for (span, expected) in [
        ("of the service", ("test", "0", "", 0)),
        (
            "of the library",
            ("my-cache", "2.1.0", "https://opentelemetry.io/schemas/1.44.0", 0),
        ),
        ("of the API", ("of the API", "3", "https://example.com/schema", 1)),
    ] {
        let scopes = scopes_of(memory, span);
        let (name, version, url, attributes) = &scopes[0];
        assert_eq!((&**name, &**version, &**url, *attributes), expected);
        assert_eq!(scopes.len(), 1);
    }
}

/// Sets up an instance of its own, runs `work` with its subscriber, and returns what it exported.
fn isolated(
    configure: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder,
    work: impl FnOnce(&Telemetry),
) -> InMemory {
    let memory = InMemory::default();
    let service = Service {
        log_output: LogOutput::Off,
        ..Service::new("isolated", "0")
    };
    let builder = Telemetry::builder(service).exporter(memory.exporter()).isolated();
    let (telemetry, layer) = configure(builder).build().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || work(&telemetry));
    telemetry.flush(DEADLINE).unwrap();
    memory
}

fn points(memory: &InMemory, name: &str) -> Vec<NumberDataPoint> {
    let metrics = memory.metrics();
    let named: Vec<&Metric> = metrics.iter().filter(|metric| metric.name == name).collect();
    assert!(named.len() <= 1, "{name} is exported {} times", named.len());
    match named.first().and_then(|metric| metric.data.clone()) {
        Some(Data::Sum(sum)) => sum.data_points,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_cardinality_limit_can_be_set_for_all_instruments_and_for_one() {
    let view = |instrument: &Instrument| {
        let limited = Stream::builder().with_name("narrowed").with_cardinality_limit(2);
        (instrument.name() == "narrow").then(|| limited.build().unwrap())
    };
    let memory = isolated(
        |builder| builder.cardinality_limit(3).view(view),
        |telemetry| {
            let meter = telemetry.meter_provider().unwrap().meter("m");
            for name in ["wide", "narrow"] {
                let counter = meter.u64_counter(name).build();
                (0..10).for_each(|visitor| counter.add(1, &[KeyValue::new("visitor", visitor)]));
            }
        },
    );
    assert!(memory.metrics().iter().all(|metric| metric.name != "narrow"));
    for (name, limit) in [("wide", 3), ("narrowed", 2)] {
        let points = points(&memory, name);
        assert_eq!(points.len(), limit + 1, "{name}");
        let overflow = points
            .iter()
            .find(|point| value(&point.attributes, "otel.metric.overflow").is_some())
            .unwrap();
        assert_eq!(number(overflow), (10 - limit) as f64, "{name}");
    }
}

#[test]
fn instruments_that_conflict_cause_one_warning() {
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            struct Message(String);
            impl tracing::field::Visit for Message {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    if field.name() == "message" {
                        self.0 = format!("{value:?}");
                    }
                }
            }
            if *event.metadata().level() <= tracing::Level::WARN {
                let mut message = Message(String::new());
                event.record(&mut message);
                self.0.lock().unwrap().push(message.0);
            }
        }
    }

    let warnings = Warnings::default();
    let own = warnings.clone();
    isolated(
        |builder| builder,
        |telemetry| {
            let provider = telemetry.meter_provider().unwrap();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(own), || {
                let meter = provider.meter("m");
                let other = provider.meter("other");
                for _ in 0..2 {
                    meter
                        .u64_counter("orders")
                        .with_unit("{order}")
                        .build()
                        .add(1, &[]);
                    meter
                        .u64_counter("Orders")
                        .with_unit("{order}")
                        .build()
                        .add(1, &[]);
                    other.f64_gauge("orders").build().record(1.0, &[]);
                }
                meter
                    .f64_gauge("orders")
                    .with_unit("{order}")
                    .build()
                    .record(1.0, &[]);
            });
        },
    );
    let seen = warnings.0.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].contains("orders") && seen[0].contains("Gauge"),
        "{seen:?}"
    );
}

#[test]
fn chosen_baggage_is_copied_to_spans_and_log_records() {
    let memory = isolated(
        |builder| builder.baggage_attributes(|key| key == "tenant"),
        |_| {
            let baggage = [
                KeyValue::new("tenant", "blue"),
                KeyValue::new("session", "s3cret"),
            ];
            let _attached = Context::current_with_baggage(baggage).attach();
            tracing::info_span!("order").in_scope(|| tracing::info!("placed"));
        },
    );
    let (spans, records) = (memory.spans(), memory.log_records());
    for attributes in [&spans[0].attributes, &records[0].attributes] {
        assert_eq!(text(attributes, "tenant"), "blue");
        assert_eq!(value(attributes, "session"), None);
    }
}

/// Exporters and a processor of the program.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl SpanExporter for Names {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let names = batch.into_iter().map(|span| span.name.into_owned());
        self.0.lock().unwrap().extend(names);
        Ok(())
    }
}

impl SpanProcessor for Names {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        assert_eq!(span.instrumentation_scope.name(), module_path!());
        self.0.lock().unwrap().push(span.name.into_owned());
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogExporter for Names {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let bodies = batch.iter().filter_map(|(record, _)| match record.body() {
            Some(AnyValue::String(body)) => Some(body.to_string()),
            _ => None,
        });
        self.0.lock().unwrap().extend(bodies);
        Ok(())
    }
}

#[test]
fn exporters_of_the_program_get_spans_and_log_records() {
    let names = Names::default();
    let [of_spans, of_logs] = [names.clone(), names.clone()];
    let memory = isolated(
        |builder| {
            let builder = builder.span_processor(SimpleSpanProcessor::new(of_spans));
            builder.log_processor(SimpleLogProcessor::new(of_logs))
        },
        |_| tracing::info_span!("order").in_scope(|| tracing::info!("placed")),
    );
    assert_eq!(*names.0.lock().unwrap(), ["placed", "order"]);
    assert_eq!((memory.spans().len(), memory.log_records().len()), (1, 1));
}

#[test]
fn a_span_that_is_recorded_but_not_sampled_reaches_processors_only() {
    let names = Names::default();
    let of_spans = names.clone();
    let memory = isolated(
        |builder| {
            let sampler = AlwaysRecord(Sampler::AlwaysOff);
            builder.span_processor(of_spans).sampler(sampler)
        },
        |_| {
            tracing::info_span!("unsampled").in_scope(|| {
                let cx = Context::current();
                assert!(cx.span().span_context().is_valid() && !cx.span().span_context().is_sampled());
                assert!(cx.span().is_recording());
            });
        },
    );
    assert_eq!(*names.0.lock().unwrap(), ["unsampled"]);
    assert_eq!(memory.spans(), []);
}

#[test]
fn a_view_changes_the_stream_or_drops_it() {
    let view = |instrument: &Instrument| {
        let stream = Stream::builder();
        let stream = match (instrument.name(), instrument.kind()) {
            ("sizes", InstrumentKind::Histogram) => {
                let boundaries = vec![2.5];
                let buckets = Aggregation::ExplicitBucketHistogram {
                    boundaries,
                    record_min_max: false,
                };
                let named = stream
                    .with_name("own.sizes")
                    .with_description("Own.")
                    .with_unit("By");
                named.with_aggregation(buckets)
            }
            ("secret", _) => stream.with_aggregation(Aggregation::Drop),
            ("orders", _) => stream.with_allowed_attribute_keys([Key::new("kept")]),
            _ => return None,
        };
        Some(stream.build().unwrap())
    };
    let everything = |instrument: &Instrument| {
        let copied = Stream::builder().with_name("copy");
        (instrument.name() == "orders").then(|| copied.build().unwrap())
    };
    let memory = isolated(
        |builder| builder.view(view).view(everything),
        |telemetry| {
            let meter = telemetry.meter_provider().unwrap().meter("m");
            #[expect(
                clippy::disallowed_methods,
                reason = "views apply to histograms of the SDK too"
            )]
            let sizes = meter
                .f64_histogram("sizes")
                .with_boundaries(vec![1.0, 2.0])
                .build();
            [1.0, 2.0, 3.0].iter().for_each(|size| sizes.record(*size, &[]));
            meter.u64_counter("secret").build().add(1, &[]);
            let orders = meter.u64_counter("orders").build();
            for dropped in [1, 2] {
                orders.add(
                    1,
                    &[KeyValue::new("kept", true), KeyValue::new("dropped", dropped)],
                );
            }
            meter.u64_counter("plain").build().add(1, &[]);
        },
    );
    let metrics = memory.metrics();
    let named = |name: &str| metrics.iter().find(|metric| metric.name == name);
    let sizes = named("own.sizes").unwrap();
    assert_eq!((&*sizes.description, &*sizes.unit), ("Own.", "By"));
    let Some(Data::Histogram(histogram)) = &sizes.data else {
        panic!("{sizes:?}");
    };
    assert_eq!(histogram.data_points[0].bucket_counts, [2, 1]);
    for name in ["secret", "sizes"] {
        assert!(named(name).is_none(), "{name}");
    }
    let orders = points(&memory, "orders");
    assert_eq!(
        (orders.len(), number(&orders[0]), orders[0].attributes.len()),
        (1, 2.0, 1)
    );
    assert_eq!(points(&memory, "copy").len(), 2);
    assert_eq!(points(&memory, "plain").len(), 1);
}

#[test]
fn metrics_have_the_scope_and_the_resource_of_their_meter() {
    let memory = isolated(
        |builder| builder.resource([KeyValue::new("team", "blue")]),
        |telemetry| {
            let provider = telemetry.meter_provider().unwrap();
            let scope = InstrumentationScope::builder("lib")
                .with_version("2")
                .with_schema_url("https://example.com/schema")
                .with_attributes([KeyValue::new("edition", "red")]);
            let meters = [
                provider.meter_with_scope(scope.build()),
                provider.meter(""),
                provider.meter("other"),
            ];
            for meter in meters {
                let counter = meter
                    .u64_counter("same")
                    .with_unit("{x}")
                    .with_description("Same.");
                counter.build().add(1, &[]);
            }
        },
    );
    let request = memory.requests(Signal::Metrics).pop().unwrap();
    let request = ExportMetricsServiceRequest::decode(request.protobuf().clone()).unwrap();
    let [group] = &request.resource_metrics[..] else {
        panic!("{request:?}");
    };
    let resource = group.resource.as_ref().unwrap();
    assert_eq!(text(&resource.attributes, "team"), "blue");
    let mut scopes: Vec<_> = group
        .scope_metrics
        .iter()
        .map(|group| {
            let scope = group.scope.clone().unwrap_or_default();
            let [metric] = &group.metrics[..] else {
                panic!("{group:?}");
            };
            assert_eq!(
                (&*metric.name, &*metric.unit, &*metric.description),
                ("same", "{x}", "Same.")
            );
            (
                scope.name,
                scope.version,
                &*group.schema_url,
                scope.attributes.len(),
            )
        })
        .collect();
    scopes.sort_unstable();
    let lib = ("lib".to_owned(), "2".to_owned(), "https://example.com/schema", 1);
    let named = |name: &str| (name.to_owned(), String::new(), "", 0);
    assert_eq!(scopes, [named(""), lib, named("other")]);
}

#[test]
fn measurements_of_concurrent_threads_are_all_counted() {
    let memory = isolated(
        |builder| builder,
        |telemetry| {
            let provider = telemetry.meter_provider().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let counter = provider.meter("m").u64_counter("orders").build();
                        let bound = counter.bind(&[KeyValue::new("bound", true)]);
                        for _ in 0..1_000 {
                            counter.add(1, &[]);
                            bound.add(1);
                        }
                    });
                }
            });
        },
    );
    let mut counts: Vec<f64> = points(&memory, "orders").iter().map(number).collect();
    counts.sort_by(f64::total_cmp);
    assert_eq!(counts, [8_000.0, 8_000.0]);
}

#[test]
fn records_of_the_logs_api_have_their_event_name_and_scope() {
    let memory = isolated(
        |builder| builder,
        |telemetry| {
            let scope = InstrumentationScope::builder("lib")
                .with_schema_url("https://example.com/schema")
                .with_attributes([KeyValue::new("edition", "red")]);
            let logger = telemetry
                .logger_provider()
                .unwrap()
                .logger_with_scope(scope.build());
            assert!(logger.event_enabled(Severity::Info, "lib", Some("order.placed")));
            let mut record = logger.create_log_record();
            record.set_event_name("order.placed");
            record.set_severity_number(Severity::Warn);
            record.set_body("placed".into());
            record.add_attribute("order", 7);
            let parent = SpanContext::new(
                TraceId::from(7),
                SpanId::from(9),
                TraceFlags::SAMPLED,
                true,
                TraceState::default(),
            );
            let _attached = Context::new().with_remote_span_context(parent).attach();
            logger.emit(record);
        },
    );
    let request = memory.requests(Signal::Logs).pop().unwrap();
    let request = ExportLogsServiceRequest::decode(request.protobuf().clone()).unwrap();
    let group = &request.resource_logs[0].scope_logs[0];
    let scope = group.scope.as_ref().unwrap();
    assert_eq!((&*scope.name, scope.attributes.len()), ("lib", 1));
    assert_eq!(group.schema_url, "https://example.com/schema");
    let record = &group.log_records[0];
    assert_eq!(
        (&*record.event_name, record.severity_number),
        ("order.placed", 13)
    );
    assert_eq!(value(&record.attributes, "order"), Some(Value::IntValue(7)));
    assert_eq!(record.trace_id, 7_u128.to_be_bytes());
    assert_eq!(record.span_id, 9_u64.to_be_bytes());
}

#[test]
fn an_instrument_with_an_invalid_name_records_nothing() {
    let memory = isolated(
        |builder| builder,
        |telemetry| {
            let meter = telemetry.meter_provider().unwrap().meter("m");
            for name in ["1st", "", "with space", "valid/name.of-an_instrument"] {
                meter.u64_counter(name).build().add(1, &[]);
            }
        },
    );
    let names: Vec<String> = memory.metrics().into_iter().map(|metric| metric.name).collect();
    assert_eq!(names, ["valid/name.of-an_instrument"]);
}

#[test]
fn resources_are_merged_and_read() {
    let empty = Resource::builder_empty().build();
    assert!(empty.is_empty());
    let own = [KeyValue::new("team", "blue"), KeyValue::new("kept", 1)];
    let builder = Resource::builder_empty().with_attributes(own);
    let builder = builder.with_attributes([KeyValue::new("team", "red")]);
    let merged = builder.with_schema_url([], "https://example.com/schema").build();
    assert_eq!(merged.get(&Key::new("team")), Some("red".into()));
    assert_eq!(merged.get(&Key::new("kept")), Some(1.into()));
    assert_eq!(merged.schema_url(), Some("https://example.com/schema"));
    assert_eq!(merged.len(), 2);
}

#[test]
fn a_carrier_lists_its_keys() {
    #[derive(Debug)]
    struct Listing(Arc<Mutex<Vec<String>>>);
    impl TextMapPropagator for Listing {
        fn inject_context(&self, _: &Context, _: &mut dyn Injector) {}

        fn extract_with_context(&self, cx: &Context, carrier: &dyn Extractor) -> Context {
            self.0
                .lock()
                .unwrap()
                .extend(carrier.keys().into_iter().map(str::to_owned));
            cx.clone()
        }

        fn fields(&self) -> FieldIter<'_> {
            FieldIter::new(&[])
        }
    }

    const CHILD: &str = "LISTING";
    let test = "a_carrier_lists_its_keys";
    if std::env::var_os(CHILD).is_none() {
        // A process of its own, because propagators are global.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([test, "--exact"]).env(CHILD, "1").output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
        return;
    }
    let listed = Arc::new(Mutex::new(Vec::new()));
    let builder = Telemetry::builder(Service::new("listing", "0")).propagator(Listing(Arc::clone(&listed)));
    let _telemetry = builder.exporter(InMemory::default().exporter()).init().unwrap();
    otel_service::extract_context([("x-own", "1"), ("x-other", "2")]);
    assert_eq!(*listed.lock().unwrap(), ["x-own", "x-other"]);
}

#[test]
fn values_of_a_context_last_while_it_is_attached() {
    #[derive(Debug, PartialEq)]
    struct Tenant(u32);
    assert_eq!(Context::current().get::<Tenant>(), None);
    let attached = Context::current().with_value(Tenant(7)).attach();
    assert_eq!(Context::current().get(), Some(&Tenant(7)));
    drop(attached);
    assert_eq!(Context::current().get::<Tenant>(), None);
}

#[test]
fn the_environment_carries_a_context_to_a_child_process() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    if std::env::var_os("TRACEPARENT").is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["the_environment_carries_a_context_to_a_child_process", "--exact"])
            .envs([("TRACEPARENT", PARENT), ("BAGGAGE", "tenant=blue")])
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    let telemetry = testing::telemetry();
    let cx = otel_service::environment_context();
    assert_eq!(cx.baggage().get("tenant").unwrap().as_str(), "blue");
    let attached = cx.attach();
    Span::internal("child").in_scope(|| {
        let variables: BTreeMap<_, _> = otel_service::context_variables().into_iter().collect();
        assert!(variables["TRACEPARENT"].starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(!variables["TRACEPARENT"].contains("b7ad6b7169203331"));
        assert_eq!(variables["BAGGAGE"], "tenant=blue");
    });
    drop(attached);
    let spans = telemetry.spans("0af7651916cd43dd8448eb211c80319c");
    assert_eq!(spans[0].parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
}
