//! Telemetry that a process records, with each form in each place that the API has.

use std::time::{Duration, SystemTime};

use otlp_recorder::Signal;
use serde_json::Value;
use telemetry::opentelemetry::{
    Array, InstrumentationScope, StringValue, Value as OtherValue,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
    metrics::MeterProvider as _,
    trace::{
        Event, Link, Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
        TraceState, Tracer as _, TracerProvider as _,
    },
};
use telemetry::{Context, KeyValue, Service, Telemetry, testing::InMemory};

use crate::forms::FORMS;
use crate::places::{FORM, MARK};
use crate::sink;

/// Records everything, and returns the groups by signal and form.
pub fn groups() -> [Vec<Value>; 3] {
    let mut requests = Vec::new();
    for (index, form) in FORMS.iter().enumerate() {
        let memory = InMemory::default();
        let number = i64::try_from(index).unwrap();
        let (telemetry, _layer) = Telemetry::builder(Service::new("masking", "1"))
            .resource([KeyValue::new(FORM, number)])
            .resource(attributes(form.text))
            .exporter(memory.exporter())
            .isolated()
            .build::<tracing_subscriber::Registry>()
            .unwrap();
        record(&telemetry, form.text);
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
        for (signal, name) in [
            (Signal::Traces, "traces"),
            (Signal::Logs, "logs"),
            (Signal::Metrics, "metrics"),
        ] {
            let sent = memory.requests(signal);
            requests.extend(sent.iter().map(|request| sink::json(name, request.protobuf())));
        }
    }
    let groups = sink::sorted(&requests);
    assert!(groups.iter().all(|groups| groups.len() == FORMS.len()));
    groups
}

fn attributes(form: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("text", form.to_owned()),
        KeyValue::new(form.to_owned(), MARK),
    ]
}

fn linked(form: &str) -> SpanContext {
    let state = TraceState::from_key_value([("vendor", form)]).unwrap_or_default();
    SpanContext::new(
        TraceId::from(0xabc),
        SpanId::from(0xdef),
        TraceFlags::SAMPLED,
        true,
        state,
    )
}

fn record(telemetry: &Telemetry, form: &str) {
    let scope = || {
        InstrumentationScope::builder(form.to_owned())
            .with_version(form.to_owned())
            .with_attributes(attributes(form))
            .build()
    };
    let list: Vec<StringValue> = vec![form.to_owned().into()];
    let tracer = telemetry.tracer_provider().unwrap().tracer_with_scope(scope());
    let builder = tracer
        .span_builder(form.to_owned())
        .with_attributes(
            attributes(form)
                .into_iter()
                .chain([KeyValue::new("list", OtherValue::Array(Array::String(list)))]),
        )
        .with_events(vec![Event::new(
            form.to_owned(),
            SystemTime::now(),
            attributes(form),
            0,
        )])
        .with_links(vec![Link::new(linked(form), attributes(form), 0)]);
    let parent = Context::new().with_remote_span_context(linked(form));
    let mut span = tracer.build_with_context(builder, &parent);
    span.set_status(Status::error(form.to_owned()));
    span.end();

    let logger = telemetry.logger_provider().unwrap().logger_with_scope(scope());
    let text = || AnyValue::from(form.to_owned());
    let map = |inner: Option<AnyValue>| {
        let known = [("text".to_owned(), text()), (form.to_owned(), MARK.into())];
        let inner = inner.map(|inner| ("inner".to_owned(), inner));
        known.into_iter().chain(inner).collect::<AnyValue>()
    };
    let bodies = [
        text(),
        map(Some(map(None))),
        [text()].into_iter().collect(),
        AnyValue::Bytes(Box::new(form.as_bytes().to_vec())),
    ];
    let severities = [
        Severity::Trace,
        Severity::Trace2,
        Severity::Trace3,
        Severity::Trace4,
    ];
    for (body, severity) in bodies.into_iter().zip(severities) {
        let mut record = logger.create_log_record();
        record.set_severity_number(severity);
        record.set_event_name(Box::leak(form.to_owned().into_boxed_str()));
        record.set_body(body);
        record.add_attribute("text", text());
        record.add_attribute(form.to_owned(), MARK);
        record.add_attribute("map", map(None));
        logger.emit(record);
    }

    let meter = telemetry.meter_provider().unwrap().meter_with_scope(scope());
    let counter = meter
        .u64_counter("points")
        .with_description(form.to_owned())
        .build();
    counter.add(1, &attributes(form));
}
