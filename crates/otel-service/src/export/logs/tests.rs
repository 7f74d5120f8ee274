//! What is written is compared with what the upstream transform makes of the same records.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use opentelemetry::logs::{LogRecord as _, Logger, LoggerProvider, Severity};
use opentelemetry::{KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, SdkLogger, SdkLoggerProvider};
use prost::Message;

use super::super::frame::Frame;
use super::super::tidy::Tidy;
use super::*;

const PLAIN: Tidy = Tidy {
    masking: false,
    value_limit: None,
};

/// A record with the scope that it was made in.
type Entry = (SdkLogRecord, InstrumentationScope);

/// Keeps what a processor is given.
#[derive(Clone, Debug, Default)]
struct Given(Arc<Mutex<Vec<Entry>>>);

impl LogProcessor for Given {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.0.lock().unwrap().push((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What `fill` makes of records, as a processor gets them.
fn entries(fill: impl Fn(&SdkLogger)) -> Vec<Entry> {
    let given = Given::default();
    let provider = SdkLoggerProvider::builder()
        .with_log_processor(given.clone())
        .build();
    fill(&provider.logger("scope"));
    given.0.lock().unwrap().split_off(0)
}

fn resource() -> Resource {
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", "test"))
        .build()
}

fn decoded(most_attributes: usize, batch: Vec<Entry>) -> ExportLogsServiceRequest {
    let queue = Arc::new(Queue::new(100, 100));
    let processor = QueuedLogs::new(Arc::clone(&queue), most_attributes);
    for (mut record, scope) in batch {
        processor.emit(&mut record, &scope);
    }
    let request = Frame::new(&resource(), PLAIN).request(queue.take().unwrap(), &queue);
    ExportLogsServiceRequest::decode(request).unwrap()
}

fn only(most_attributes: usize, batch: Vec<Entry>) -> LogRecord {
    let mut request = decoded(most_attributes, batch);
    request.resource_logs[0].scope_logs[0].log_records.remove(0)
}

#[test]
fn a_request_is_what_the_upstream_transform_makes() {
    let batch = entries(|logger| {
        let mut full = logger.create_log_record();
        full.set_timestamp(SystemTime::now());
        full.set_target("b::target");
        full.set_event_name("happened");
        full.set_severity_number(Severity::Warn);
        full.set_severity_text("WARN");
        full.set_body("what happened".into());
        full.set_trace_context(TraceId::from(7), SpanId::from(8), Some(TraceFlags::SAMPLED));
        full.add_attribute("text", "x".repeat(200));
        full.add_attribute("empty", "");
        full.add_attribute("number", -1);
        full.add_attribute("zero", 0);
        full.add_attribute("fraction", 0.0);
        full.add_attribute("truth", false);
        full.add_attribute("bytes", AnyValue::Bytes(Box::new(vec![1, 2, 3])));
        full.add_attribute("list", AnyValue::ListAny(Box::new(vec![1.into(), "a".into()])));
        let map = HashMap::from([(Key::new("inner"), AnyValue::from(1))]);
        full.add_attribute("map", AnyValue::Map(Box::new(map)));
        logger.emit(full);
        for target in ["c::target", "b::target"] {
            let mut short = logger.create_log_record();
            short.set_target(target);
            logger.emit(short);
        }
        logger.emit(logger.create_log_record());
    });
    let references: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
    let mut expected = group_logs_by_resource_and_scope(
        &LogBatch::new(&references),
        &ResourceAttributesWithSchema::from(&resource()),
    );
    let mut written = decoded(128, batch).resource_logs;
    for group in expected.iter_mut().chain(&mut written) {
        group
            .scope_logs
            .sort_by_key(|scope| scope.scope.as_ref().map(|scope| scope.name.clone()));
    }
    assert_eq!(written[0].scope_logs.len(), 3);
    assert_eq!(written, expected);
}

#[test]
fn attributes_beyond_the_limit_are_dropped_and_counted_and_the_last_value_of_a_key_is_kept() {
    let record = only(
        2,
        entries(|logger| {
            let mut record = logger.create_log_record();
            for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("d", 5)] {
                record.add_attribute(key, value);
            }
            logger.emit(record);
        }),
    );
    let shown: Vec<String> = record
        .attributes
        .iter()
        .map(|attribute| format!("{} {:?}", attribute.key, attribute.value.as_ref().unwrap().value))
        .collect();
    assert_eq!(shown, ["b Some(IntValue(2))", "a Some(IntValue(3))"]);
    assert_eq!(record.dropped_attributes_count, 2);
}

#[test]
fn a_provider_that_is_shut_down_queues_nothing() {
    let queue = Arc::new(Queue::new(10, 5));
    let processor = QueuedLogs::new(Arc::clone(&queue), 128);
    processor.shutdown().unwrap();
    let (mut record, scope) = entries(|logger| logger.emit(logger.create_log_record())).remove(0);
    processor.emit(&mut record, &scope);
    assert_eq!((queue.len(), queue.counts().late), (0, 1));
}
