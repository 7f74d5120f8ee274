//! Instruments and views.

use std::sync::{Arc, Mutex};

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};
use otel_service::KeyValue;
use otel_service::names;
use otel_service::testing::{self, InMemory};
use otlp_recorder::Signal;
use prost::Message as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::support::{isolated, text, value};

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
    assert_eq!(group.schema_url, names::SCHEMA_URL);
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
