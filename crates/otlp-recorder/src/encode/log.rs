//! Encoding of log records.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::logs::SdkLogRecord;

use super::fields::{any_value, key_value, list, log_record};
use super::wire::{Writer, nanoseconds, with_scratch};
use crate::text::TextRules;

/// Encodes log records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEncoder {
    /// Maximum number of attributes.
    pub(crate) attribute_limit: usize,
    pub(crate) rules: TextRules,
}

impl LogEncoder {
    /// Encodes `record` and passes the result to `push`.
    pub(crate) fn encode(self, record: &SdkLogRecord, push: impl FnOnce(&[u8])) {
        with_scratch(|writer| {
            self.write(writer, record);
            push(writer.bytes());
        });
    }

    fn write(self, writer: &mut Writer, record: &SdkLogRecord) {
        use log_record::*;
        writer.fixed64(TIME, record.timestamp().map(nanoseconds).unwrap_or_default());
        let severity = record.severity_number().map(|severity| severity as u64);
        writer.varint(SEVERITY_NUMBER, severity.unwrap_or_default());
        writer.string(SEVERITY_TEXT, record.severity_text().unwrap_or_default());
        if let Some(body) = record.body() {
            writer.message(BODY, |writer| write_value(self.rules, writer, body));
        }
        let dropped = self.write_attributes(writer, record);
        writer.varint(DROPPED_ATTRIBUTES, dropped);
        if let Some(context) = record.trace_context() {
            let flags = context.trace_flags.unwrap_or_default();
            writer.fixed32(FLAGS, flags.to_u8().into());
            writer.bytes_always(TRACE_ID, &context.trace_id.to_bytes());
            writer.bytes_always(SPAN_ID, &context.span_id.to_bytes());
        }
        let observed = record.observed_timestamp().map(nanoseconds);
        writer.fixed64(OBSERVED_TIME, observed.unwrap_or_default());
        let event_name = record.event_name().unwrap_or_default();
        writer.string(EVENT_NAME, &self.rules.redacted(event_name));
    }

    /// Writes the last value of each key; returns the number of keys beyond the limit.
    fn write_attributes(self, writer: &mut Writer, record: &SdkLogRecord) -> u64 {
        let attributes = record.attributes_iter();
        let all: Vec<(Cow<'_, str>, &AnyValue)> = attributes
            .map(|(key, value)| (self.rules.redacted(key.as_str()), value))
            .collect();
        let unique = all
            .iter()
            .enumerate()
            .filter(|(index, (key, _))| !all[index + 1..].iter().any(|(later, _)| later == key));
        let mut count = 0;
        for (_, (key, value)) in unique {
            if count < self.attribute_limit {
                write_key_value(self.rules, writer, log_record::ATTRIBUTES, key, value);
            }
            count += 1;
        }
        count.saturating_sub(self.attribute_limit) as u64
    }
}

fn write_key_value(rules: TextRules, writer: &mut Writer, field: u32, key: &str, value: &AnyValue) {
    writer.message(field, |writer| {
        writer.string(key_value::KEY, key);
        writer.message(key_value::VALUE, |writer| write_value(rules, writer, value));
    });
}

/// Writes the content of an `AnyValue`. Bytes are redacted if they are text.
fn write_value(rules: TextRules, writer: &mut Writer, value: &AnyValue) {
    match value {
        AnyValue::String(text) => {
            writer.bytes_always(any_value::STRING, rules.redacted(text.as_str()).as_bytes());
        }
        AnyValue::Boolean(truth) => writer.varint_always(any_value::BOOL, u64::from(*truth)),
        AnyValue::Int(number) => writer.varint_always(any_value::INT, number.cast_unsigned()),
        AnyValue::Double(number) => writer.double_always(any_value::DOUBLE, *number),
        AnyValue::ListAny(values) => writer.message(any_value::ARRAY, |writer| {
            for value in values.iter() {
                writer.message(list::VALUES, |writer| write_value(rules, writer, value));
            }
        }),
        AnyValue::Map(entries) => writer.message(any_value::KEY_VALUE_LIST, |writer| {
            for (key, value) in entries.iter() {
                let key = rules.redacted(key.as_str());
                write_key_value(rules, writer, list::VALUES, &key, value);
            }
        }),
        AnyValue::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).map(|text| rules.redacted(text));
            let redacted = text.as_ref().map_or(&bytes[..], |text| text.as_bytes());
            writer.bytes_always(any_value::BYTES, redacted);
        }
        // `AnyValue` is non-exhaustive.
        _ => {}
    }
}
