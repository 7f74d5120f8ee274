//! Texts of telemetry that searches can find, as grams.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::Span,
};

use crate::store::{grams, service_of};

/// Set of the grams of texts.
#[derive(Debug)]
pub(super) struct Texts {
    /// Positions in order of their first occurrence.
    positions: Vec<u32>,
    /// Bitmap of `positions`.
    seen: Vec<u8>,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self {
            positions: Vec::new(),
            seen: vec![0; grams::POSITIONS / 8],
        }
    }

    /// Returns the positions, and empties the set.
    pub(super) fn take(&mut self) -> Vec<u32> {
        for position in &self.positions {
            self.seen[*position as usize / 8] = 0;
        }
        std::mem::take(&mut self.positions)
    }

    pub(super) fn add_all(&mut self, positions: &[u32]) {
        positions.iter().for_each(|position| self.add(*position));
    }

    fn add(&mut self, position: u32) {
        let (byte, bit) = (&mut self.seen[position as usize / 8], 1 << (position % 8));
        if *byte & bit == 0 {
            *byte |= bit;
            self.positions.push(position);
        }
    }

    fn add_text(&mut self, text: &[u8]) {
        grams::of_whole(text, |position| self.add(position));
    }

    pub(super) fn add_source(&mut self, resource: Option<&Resource>, scope: Option<&InstrumentationScope>) {
        self.add_text(service_of(resource).as_bytes());
        self.add_attributes(resource.map_or(&[], |resource| &resource.attributes));
        self.add_text(scope.map_or("", |scope| &scope.name).as_bytes());
    }

    pub(super) fn add_span(&mut self, span: &Span) {
        self.add_text(span.name.as_bytes());
        if let Some(status) = &span.status {
            self.add_text(status.message.as_bytes());
        }
        self.add_attributes(&span.attributes);
        for event in &span.events {
            self.add_text(event.name.as_bytes());
            self.add_attributes(&event.attributes);
        }
    }

    pub(super) fn add_record(&mut self, record: &LogRecord) {
        self.add_text(record.event_name.as_bytes());
        self.add_text(record.severity_text.as_bytes());
        self.add_attributes(&record.attributes);
        record.body.iter().for_each(|body| self.add_value(body));
        let severity = u8::try_from(record.severity_number).unwrap_or(0);
        grams::of_severity(severity, |position| self.add(position));
    }

    fn add_attributes(&mut self, attributes: &[KeyValue]) {
        for attribute in attributes {
            self.add_text(attribute.key.as_bytes());
            attribute.value.iter().for_each(|value| self.add_value(value));
        }
    }

    /// Adds the text form of a value.
    fn add_value(&mut self, value: &AnyValue) {
        match &value.value {
            Some(Value::StringValue(text)) => self.add_text(text.as_bytes()),
            Some(Value::BytesValue(bytes)) => self.add_text(bytes),
            Some(Value::BoolValue(value)) => self.add_text(value.to_string().as_bytes()),
            Some(Value::IntValue(value)) => self.add_text(value.to_string().as_bytes()),
            Some(Value::DoubleValue(value)) => self.add_text(value.to_string().as_bytes()),
            Some(Value::ArrayValue(array)) => array.values.iter().for_each(|value| self.add_value(value)),
            Some(Value::KvlistValue(list)) => self.add_attributes(&list.values),
            Some(Value::StringValueStrindex(_)) | None => {}
        }
    }
}
