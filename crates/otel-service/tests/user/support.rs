//! Attributes, and instances whose telemetry stays in memory.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::KeyValue as Attribute;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use otel_service::testing::InMemory;
use otel_service::{LogOutput, Service, Telemetry, TelemetryBuilder};
use tracing_subscriber::layer::SubscriberExt as _;

const DEADLINE: Duration = Duration::from_secs(20);

pub fn value(attributes: &[Attribute], key: &str) -> Option<Value> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next()?.value.clone()?.value;
    assert!(found.next().is_none(), "{key} appears more than once");
    value
}

pub fn text(attributes: &[Attribute], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// Sets up an instance of its own, runs `work` with its subscriber, and returns what it exported.
pub fn isolated(
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
