//! OpenTelemetry's own API: records, resources and contexts.

use opentelemetry::logs::{LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_sdk::Resource;
use otel_service::{Context, KeyValue, names};
use otlp_recorder::Signal;
use prost::Message as _;

use crate::support::{isolated, value};

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
    assert_eq!(request.resource_logs[0].schema_url, names::SCHEMA_URL);
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
fn values_of_a_context_last_while_it_is_attached() {
    #[derive(Debug, PartialEq)]
    struct Tenant(u32);
    assert_eq!(Context::current().get::<Tenant>(), None);
    let attached = Context::current().with_value(Tenant(7)).attach();
    assert_eq!(Context::current().get(), Some(&Tenant(7)));
    drop(attached);
    assert_eq!(Context::current().get::<Tenant>(), None);
}
