//! The encoder is compared with the upstream conversion of the same records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{LogRecord as _, Logger, LoggerProvider, Severity};
use opentelemetry::{InstrumentationScope, Key, KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogProcessor, SdkLogger, SdkLoggerProvider};
use prost::Message;

use super::*;
use crate::encode::{Batch, RequestEncoder, Scopes};
use crate::processors::QueueLogProcessor;
use crate::queue::Queue;
use crate::text::TextRules;
use crate::text::tests::redact_mail;

/// A record and its scope.
type Entry = (SdkLogRecord, InstrumentationScope);

/// A processor that keeps the records it receives.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<Mutex<Vec<Entry>>>);

impl LogProcessor for Captured {
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

/// Returns the records that `emit` logs, as a processor receives them.
fn entries(emit: impl Fn(&SdkLogger)) -> Vec<Entry> {
    let captured = Captured::default();
    let provider = SdkLoggerProvider::builder()
        .with_log_processor(captured.clone())
        .build();
    emit(&provider.logger("scope"));
    captured.0.lock().unwrap().split_off(0)
}

fn resource() -> Resource {
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", "test"))
        .build()
}

fn encoder(attribute_limit: usize) -> LogEncoder {
    LogEncoder {
        attribute_limit,
        rules: TextRules::default(),
    }
}

fn decoded(attribute_limit: usize, batch: Vec<Entry>) -> ExportLogsServiceRequest {
    let queue = Arc::new(Queue::<Batch>::new(100, 100));
    let processor = QueueLogProcessor {
        queue: Arc::clone(&queue),
        encoder: encoder(attribute_limit),
    };
    for (mut record, scope) in batch {
        processor.emit(&mut record, &scope);
    }
    let encoder = RequestEncoder::new(&resource(), TextRules::default(), Arc::new(Scopes::default()));
    let request = encoder.encode(&queue.take().unwrap());
    ExportLogsServiceRequest::decode(request).unwrap()
}

fn only(attribute_limit: usize, batch: Vec<Entry>) -> LogRecord {
    let mut request = decoded(attribute_limit, batch);
    request.resource_logs[0].scope_logs[0].log_records.remove(0)
}

#[test]
fn a_request_equals_the_upstream_conversion() {
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
fn text_in_every_form_of_a_value_is_redacted() {
    let mail = "alice@example.com";
    let rules = TextRules {
        redact: Some(redact_mail),
        value_limit: None,
    };
    let text = || AnyValue::from(mail);
    let bodies: [AnyValue; 4] = [
        text(),
        AnyValue::ListAny(Box::new(vec![text()])),
        AnyValue::Map(Box::new([(Key::new(mail), text())].into())),
        AnyValue::Bytes(Box::new(mail.as_bytes().to_vec())),
    ];
    for body in bodies {
        let mut batch = entries(|logger| {
            let mut record = logger.create_log_record();
            record.set_body(body.clone());
            record.set_event_name(mail);
            record.add_attribute(mail, text());
            logger.emit(record);
        });
        let mut writer = Writer::default();
        let encoder = LogEncoder {
            attribute_limit: 128,
            rules,
        };
        encoder.write(&mut writer, &batch.remove(0).0);
        let encoded = String::from_utf8_lossy(writer.bytes()).into_owned();
        assert!(!encoded.contains(mail), "{encoded}");
        // Event name, key and value of the attribute, and at least the body.
        assert!(encoded.matches("al***@example.com").count() >= 4, "{encoded}");
    }
}

#[test]
fn records_after_the_shutdown_are_not_queued() {
    let queue = Arc::new(Queue::<Batch>::new(10, 5));
    let processor = QueueLogProcessor {
        queue: Arc::clone(&queue),
        encoder: encoder(128),
    };
    processor.shutdown().unwrap();
    let (mut record, scope) = entries(|logger| logger.emit(logger.create_log_record())).remove(0);
    processor.emit(&mut record, &scope);
    assert_eq!((queue.len(), queue.counts().late), (0, 1));
}
