//! Log records: they come from the log layer through the SDK and are written into the queue as the bytes that they will be
//! in a request. They were masked when they were written to standard output; what is left to do is one value for each
//! key and the limit of their number.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};

use super::frame::Batch;
use super::queue::Queue;
use super::wire::{Wire, nanoseconds, with_scratch};

/// Puts log records into the queue.
#[derive(Debug)]
pub(crate) struct QueuedLogs {
    queue: Arc<Queue<Batch>>,
    encoder: LogEncoder,
}

impl QueuedLogs {
    pub(crate) fn new(queue: Arc<Queue<Batch>>, most_attributes: usize) -> Self {
        Self {
            queue,
            encoder: LogEncoder { most_attributes },
        }
    }
}

impl LogProcessor for QueuedLogs {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        // Records of one target make a scope with its name.
        let target = record.target().map(AsRef::as_ref);
        with_scratch(|entry| {
            self.encoder.record(entry, record);
            self.queue
                .push(|batch| batch.add_of(scope, target, &[entry.bytes()]));
        });
    }

    /// Asks for an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Takes no more records; the export thread sees to those that wait.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}

/// Writes log records. The numbers are those of the fields in OTLP's `logs/v1/logs.proto` and `common/v1/common.proto`.
#[derive(Clone, Debug)]
struct LogEncoder {
    most_attributes: usize,
}

impl LogEncoder {
    fn record(&self, wire: &mut Wire, record: &SdkLogRecord) {
        wire.fixed64(1, record.timestamp().map(nanoseconds).unwrap_or_default());
        wire.number(
            2,
            record
                .severity_number()
                .map(|severity| severity as u64)
                .unwrap_or_default(),
        );
        wire.text(3, record.severity_text().unwrap_or_default());
        if let Some(body) = record.body() {
            wire.message(5, |wire| value(wire, body));
        }
        let dropped = self.attributes(wire, record);
        wire.number(7, dropped);
        if let Some(context) = record.trace_context() {
            let flags = context.trace_flags.unwrap_or_default();
            wire.fixed32(8, flags.to_u8().into());
            wire.id(9, context.trace_id.to_bytes());
            wire.id(10, context.span_id.to_bytes());
        }
        let observed = record.observed_timestamp().map(nanoseconds);
        wire.fixed64(11, observed.unwrap_or_default());
        wire.text(12, record.event_name().unwrap_or_default());
    }

    /// Of a key that is there more than once the last value counts. Gives how many are beyond the limit.
    fn attributes(&self, wire: &mut Wire, record: &SdkLogRecord) -> u64 {
        let all: Vec<&(Key, AnyValue)> = record.attributes_iter().collect();
        let unique = all
            .iter()
            .enumerate()
            .filter(|(index, (key, _))| !all[index + 1..].iter().any(|(later, _)| later == key));
        let limit = self.most_attributes;
        let mut count = 0;
        for (_, (key, attribute)) in unique {
            if count < limit {
                wire.message(6, |wire| entry(wire, key, attribute));
            }
            count += 1;
        }
        count.saturating_sub(limit) as u64
    }
}

/// A `KeyValue`.
fn entry(wire: &mut Wire, key: &Key, of_key: &AnyValue) {
    wire.text(1, key.as_str());
    wire.message(2, |wire| value(wire, of_key));
}

/// An `AnyValue`.
fn value(wire: &mut Wire, any: &AnyValue) {
    match any {
        AnyValue::String(text) => wire.bytes_set(1, text.as_str().as_bytes()),
        AnyValue::Boolean(truth) => wire.number_set(2, u64::from(*truth)),
        AnyValue::Int(number) => wire.number_set(3, number.cast_unsigned()),
        AnyValue::Double(number) => wire.double_set(4, *number),
        AnyValue::ListAny(values) => wire.message(5, |wire| {
            for any in values.iter() {
                wire.message(1, |wire| value(wire, any));
            }
        }),
        AnyValue::Map(entries) => wire.message(6, |wire| {
            for (key, any) in entries.iter() {
                wire.message(1, |wire| entry(wire, key, any));
            }
        }),
        AnyValue::Bytes(bytes) => wire.bytes_set(7, bytes),
        // A kind that a later version of the API brings.
        _ => {}
    }
}
