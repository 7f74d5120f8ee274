//! The builder: parts and subscribers of the program, spans of `tracing` and their fields.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{Instrument, InstrumentKind, ManualReader, Pipeline, Stream, Temporality};
use opentelemetry_sdk::trace::{
    IdGenerator, SamplingDecision, SamplingResult, ShouldSample, SpanData, SpanProcessor,
};
use otel_service::opentelemetry::logs::LogRecord as _;
use otel_service::opentelemetry::propagation::text_map_propagator::FieldIter;
use otel_service::opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use otel_service::opentelemetry::trace::{Link, Span as _, SpanId, SpanKind, TraceId, TraceState};
use otel_service::opentelemetry::{InstrumentationScope, Key, Value};
use otel_service::{Context, KeyValue, Span, Telemetry};
use tracing::{Instrument as _, info_span, instrument};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::support::{self, Behaviour, Problem, json_lines, value};

const DEADLINE: Duration = Duration::from_secs(10);

#[instrument(skip_all, fields(scenario.item = item, scenario.mail = "alice@example.com"))]
async fn library_call(item: u64) {
    tokio::task::yield_now().await;
    tracing::info!(own = true, "in the library");
    Span::internal("inner")
        .run(async { Ok::<_, Problem>(()) })
        .await
        .unwrap();
}

fn traced_scenario() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    support::block_on(async {
        let work = async {
            library_call(7)
                .instrument(info_span!("outer", scenario.item = 1, scenario.tenant = "blue"))
                .await;
            Ok::<_, Problem>(())
        };
        Span::internal("root").run(work).await.unwrap();
    });
    tracing::error!(parent: &info_span!("explicit", scenario.share = 1.5), "in an explicit span");
    telemetry.shutdown(DEADLINE).unwrap();
}

#[test]
fn spans_of_libraries_are_exported_and_their_fields_are_on_log_records() {
    let test = "setup::spans_of_libraries_are_exported_and_their_fields_are_on_log_records";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], traced_scenario) else {
        return;
    };
    let received = &run.received;
    for (child, parent) in [
        ("inner", "library_call"),
        ("library_call", "outer"),
        ("outer", "root"),
    ] {
        assert_eq!(
            received.span(child).parent_span_id,
            received.span(parent).span_id,
            "{child}"
        );
        assert_eq!(received.span(child).trace_id, received.span("root").trace_id);
    }
    let call = received.span("library_call");
    assert_eq!(value(&call.attributes, "scenario.item").as_deref(), Some("7"));
    assert_eq!(
        value(&call.attributes, "scenario.mail").as_deref(),
        Some("\"al***@example.com\"")
    );
    let record = received.log("in the library");
    assert_eq!(record.span_id, call.span_id);
    for (key, expected) in [
        ("own", "true"),
        ("scenario.item", "7"),
        ("scenario.tenant", "\"blue\""),
        ("scenario.mail", "\"al***@example.com\""),
    ] {
        assert_eq!(value(&record.attributes, key).as_deref(), Some(expected), "{key}");
    }
    let explicit = received.log("in an explicit span");
    assert_eq!(explicit.span_id, received.span("explicit").span_id);
    assert_eq!(
        value(&explicit.attributes, "scenario.share").as_deref(),
        Some("1.5")
    );
    let lines = json_lines(&run.stdout);
    let line = lines
        .iter()
        .find(|line| line["message"] == "in the library")
        .unwrap();
    assert_eq!(line["fields"]["scenario.tenant"], "blue");
    assert_eq!(line["fields"]["scenario.mail"], "al***@example.com");
    // Nor a warning that the `log` crate has a logger, which the features of tracing-subscriber also set.
    assert!(lines.iter().all(|line| line["level"] != "WARN"), "{}", run.stdout);
}

#[test]
fn rust_log_removes_no_spans() {
    let test = "setup::rust_log_removes_no_spans";
    let Some(run) = support::run(test, Behaviour::Accepts, &[("RUST_LOG", "off")], traced_scenario) else {
        return;
    };
    assert_eq!(
        run.received.span_names().len(),
        4,
        "{:?}",
        run.received.span_names()
    );
    assert_eq!(run.received.logs, []);
}

#[test]
fn log_lines_have_the_fields_of_spans_while_the_sdk_is_disabled() {
    let test = "setup::log_lines_have_the_fields_of_spans_while_the_sdk_is_disabled";
    let disabled = [("OTEL_SDK_DISABLED", "true")];
    let Some(run) = support::run(test, Behaviour::Accepts, &disabled, traced_scenario) else {
        return;
    };
    assert_eq!(run.received.requests, 0);
    let lines = json_lines(&run.stdout);
    let line = lines
        .iter()
        .find(|line| line["message"] == "in the library")
        .unwrap();
    assert_eq!(line["fields"]["scenario.tenant"], "blue");
    assert_eq!(line["fields"]["scenario.mail"], "al***@example.com");
    assert!(line.get("trace_id").is_none(), "{line}");
}

/// Implementation of every part that a program can add.
#[derive(Clone, Debug, Default)]
struct Part {
    ids: Arc<AtomicU64>,
    seen: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Part {
    fn saw(&self, what: &'static str, value: impl ToString) {
        self.seen.lock().unwrap().insert(what, value.to_string());
    }
}

impl IdGenerator for Part {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(0xabcd)
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl ShouldSample for Part {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let is_dropped = attributes.contains(&KeyValue::new("noisy", true));
        SamplingResult {
            decision: if is_dropped {
                SamplingDecision::Drop
            } else {
                SamplingDecision::RecordAndSample
            },
            attributes: vec![KeyValue::new("scenario.sampler", name.to_owned())],
            trace_state: TraceState::default(),
        }
    }
}

impl SpanProcessor for Part {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, _: &Context) {
        span.set_attribute(KeyValue::new("scenario.processor", 1));
    }

    fn on_end(&self, span: SpanData) {
        self.saw("span", span.name);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.saw("shutdown", true);
        Ok(())
    }
}

impl LogProcessor for Part {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        record.add_attribute(Key::new("from.log.processor"), 2);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl TextMapPropagator for Part {
    fn inject_context(&self, _: &Context, injector: &mut dyn Injector) {
        injector.set("x-own", "1".to_owned());
    }

    fn extract_with_context(&self, cx: &Context, _: &dyn Extractor) -> Context {
        cx.clone()
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&[])
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Part {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == module_path!() && *event.metadata().level() == tracing::Level::TRACE {
            self.saw("trace event", true);
        }
    }
}

fn extended_scenario() {
    let part = Part::default();
    let reader = Arc::new(ManualReader::builder().build());
    let telemetry = Telemetry::builder(support::SERVICE)
        .resource([
            KeyValue::new("scenario.x", "press"),
            KeyValue::new("service.name", "renamed"),
        ])
        .layer(part.clone())
        .layer(part.clone())
        .span_levels("debug,quiet=off")
        .span_processor(part.clone())
        .id_generator(part.clone())
        .sampler(part.clone())
        .log_processor(part.clone())
        .view(|instrument: &Instrument| {
            let renamed = Stream::builder().with_name("work");
            (instrument.name() == "original").then(|| renamed.build().unwrap())
        })
        .metric_reader(SharedReader(Arc::clone(&reader)))
        .propagator(part.clone())
        .init()
        .unwrap();
    assert_eq!(telemetry.service_name(), "renamed");
    otel_service::meter()
        .u64_counter("original")
        .with_unit("{piece}")
        .build()
        .add(3, &[]);
    let mut collected = ResourceMetrics::default();
    reader.collect(&mut collected).unwrap();
    assert!(format!("{collected:?}").contains("work"));
    info_span!(
        "outer",
        scenario.item = 7,
        scenario.is_on = true,
        scenario.share = 0.5
    )
    .in_scope(|| {
        info_span!("dropped", noisy = true).in_scope(|| ());
        tracing::info!(target: "quiet", "logged");
        info_span!(target: "quiet", "off").in_scope(|| ());
        tracing::trace!("seen only by the program's layer");
    });
    support::block_on(async {
        let api =
            Span::internal("api").attribute(KeyValue::new("scenario.array", Value::Array(vec![1, 2].into())));
        api.run(async { Ok::<_, Problem>(()) }).await.unwrap();
    });
    let headers = otel_service::inject_context();
    assert_eq!(headers, [("x-own".to_owned(), "1".to_owned())]);
    telemetry.shutdown(DEADLINE).unwrap();
    let seen = part.seen.lock().unwrap();
    assert_eq!(seen["span"], "api");
    assert_eq!(seen["trace event"], "true");
    assert_eq!(seen["shutdown"], "true");
}

#[derive(Debug)]
struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[test]
fn parts_that_the_program_adds_take_effect() {
    let test = "setup::parts_that_the_program_adds_take_effect";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], extended_scenario) else {
        return;
    };
    let received = &run.received;
    let mut names = received.span_names();
    names.sort_unstable();
    assert_eq!(names, ["api", "outer"]);
    let outer = received.span("outer");
    assert_eq!(support::hex(&outer.trace_id), format!("{:032x}", 0xabcd));
    for (key, expected) in [
        ("scenario.item", "7"),
        ("scenario.is_on", "true"),
        ("scenario.share", "0.5"),
        ("scenario.processor", "1"),
        ("scenario.sampler", "\"outer\""),
    ] {
        assert_eq!(value(&outer.attributes, key).as_deref(), Some(expected), "{key}");
    }
    let array = value(&received.span("api").attributes, "scenario.array").unwrap();
    assert!(
        array.contains("IntValue(1)") && array.contains("IntValue(2)"),
        "{array}"
    );
    let record = received.log("logged");
    assert_eq!(
        value(&record.attributes, "from.log.processor").as_deref(),
        Some("2")
    );
    assert_eq!(record.span_id, outer.span_id);
    assert_eq!(value(&record.attributes, "scenario.item").as_deref(), Some("7"));
    assert_eq!(support::number(&received.numbers("work")[0]), 3.0);
    assert_eq!(
        value(&received.resources[0].attributes, "scenario.x").as_deref(),
        Some("\"press\"")
    );
}

#[test]
fn the_layer_works_in_a_subscriber_of_the_program() {
    let test = "setup::the_layer_works_in_a_subscriber_of_the_program";
    let invalid = [("OTEL_TRACES_SAMPLER", "sometimes")];
    let Some(run) = support::run(test, Behaviour::Accepts, &invalid, || {
        let (telemetry, layer) = Telemetry::builder(support::SERVICE).build().unwrap();
        let own = Part::default();
        tracing_subscriber::registry()
            .with(own.clone())
            .with(layer)
            .init();
        info_span!("joined").in_scope(|| tracing::info!("hello"));
        tracing_log::log::warn!("from the log crate");
        tracing::trace!("for the program's layer");
        telemetry.shutdown(DEADLINE).unwrap();
        assert_eq!(own.seen.lock().unwrap()["trace event"], "true");
    }) else {
        return;
    };
    let span = run.received.span("joined");
    run.received.log("from the log crate");
    assert_eq!(run.received.log("hello").span_id, span.span_id);
    let mut bodies = run.received.logs.iter().filter_map(support::body_of);
    assert!(
        bodies.any(|body| body.contains("OTEL_TRACES_SAMPLER")),
        "{:?}",
        run.received.logs
    );
}

#[test]
fn a_logger_that_forwards_to_tracing_causes_no_warning() {
    let test = "setup::a_logger_that_forwards_to_tracing_causes_no_warning";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        tracing_log::LogTracer::init().unwrap();
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        tracing_log::log::info!("from the log crate");
        telemetry.shutdown(DEADLINE).unwrap();
    }) else {
        return;
    };
    run.received.log("from the log crate");
    let lines = json_lines(&run.stdout);
    assert!(lines.iter().all(|line| line["level"] != "WARN"), "{}", run.stdout);
}

#[test]
fn another_logger_causes_a_warning_and_stays() {
    struct Silent;

    impl tracing_log::log::Log for Silent {
        fn enabled(&self, _: &tracing_log::log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &tracing_log::log::Record<'_>) {
            assert_eq!(record.args().to_string(), "mine");
        }

        fn flush(&self) {}
    }

    let test = "setup::another_logger_causes_a_warning_and_stays";
    let Some(run) = support::run(test, Behaviour::Accepts, &[], || {
        tracing_log::log::set_boxed_logger(Box::new(Silent)).unwrap();
        tracing_log::log::set_max_level(tracing_log::log::LevelFilter::Info);
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        tracing_log::log::info!("mine");
        telemetry.shutdown(DEADLINE).unwrap();
    }) else {
        return;
    };
    let [warning] = &json_lines(&run.stdout)[..] else {
        panic!("{}", run.stdout);
    };
    let message = warning["message"].as_str().unwrap();
    assert!(
        message.starts_with("events of the log crate are not recorded"),
        "{message}"
    );
}

#[test]
fn init_fails_with_advice_if_another_subscriber_is_installed() {
    let test = "setup::init_fails_with_advice_if_another_subscriber_is_installed";
    support::run(test, Behaviour::Accepts, &[], || {
        tracing_subscriber::registry().init();
        let error = otel_service::init(support::SERVICE).unwrap_err().to_string();
        assert!(error.contains("TelemetryBuilder::build"), "{error}");
    });
}
