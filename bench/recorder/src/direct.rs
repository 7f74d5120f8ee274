//! An exporter for the SDK's batch processor that writes protobuf from the SDK's spans without building
//! protobuf structs first. Omits events and links, which the benchmark does not record.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::blocking::Client;
use reqwest::header::CONTENT_TYPE;

use crate::Result;

#[derive(Debug)]
pub struct DirectExporter {
    client: Client,
    url: String,
    /// The encoded `ResourceSpans.resource`.
    resource: Vec<u8>,
}

impl DirectExporter {
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self {
            client: Client::builder().build()?,
            url: format!("{endpoint}/v1/traces"),
            resource: Vec::new(),
        })
    }
}

impl SpanExporter for DirectExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut body = Vec::with_capacity(512 * batch.len());
        write_message(&mut body, 1, |body| {
            body.extend_from_slice(&self.resource);
            for spans in batch.chunk_by(|one, next| one.instrumentation_scope == next.instrumentation_scope) {
                write_message(body, 2, |body| write_scope_spans(body, spans));
            }
        });
        let request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/x-protobuf");
        let response = request
            .body(body)
            .send()
            .and_then(|response| response.error_for_status());
        match response {
            Ok(_) => Ok(()),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource.clear();
        write_message(&mut self.resource, 1, |body| {
            for (key, value) in resource {
                write_attribute(body, 1, key.as_str(), value);
            }
        });
    }
}

fn write_scope_spans(body: &mut Vec<u8>, spans: &[SpanData]) {
    if let Some(first) = spans.first() {
        let scope = &first.instrumentation_scope;
        write_message(body, 1, |body| {
            write_bytes(body, 1, scope.name().as_bytes());
            write_bytes(body, 2, scope.version().unwrap_or_default().as_bytes());
            for KeyValue { key, value, .. } in scope.attributes() {
                write_attribute(body, 3, key.as_str(), value);
            }
        });
    }
    for span in spans {
        write_message(body, 2, |body| write_span(body, span));
    }
}

fn write_span(body: &mut Vec<u8>, span: &SpanData) {
    let context = &span.span_context;
    write_bytes(body, 1, &context.trace_id().to_bytes());
    write_bytes(body, 2, &context.span_id().to_bytes());
    write_bytes(body, 3, context.trace_state().header().as_bytes());
    if span.parent_span_id != opentelemetry::trace::SpanId::INVALID {
        write_bytes(body, 4, &span.parent_span_id.to_bytes());
    }
    write_bytes(body, 5, span.name.as_bytes());
    let kind = match span.span_kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    };
    write_number(body, 6, kind);
    write_time(body, 7, span.start_time);
    write_time(body, 8, span.end_time);
    for KeyValue { key, value, .. } in &span.attributes {
        write_attribute(body, 9, key.as_str(), value);
    }
    write_number(body, 10, u64::from(span.dropped_attributes_count));
    write_message(body, 15, |body| match &span.status {
        Status::Unset => {}
        Status::Ok => write_number(body, 3, 1),
        Status::Error { description } => {
            write_bytes(body, 2, description.as_bytes());
            write_number(body, 3, 2);
        }
    });
    // Bit 9 is set for a remote parent; bit 8 marks bit 9 as valid.
    let remote = if span.parent_span_is_remote { 0x300 } else { 0x100 };
    write_varint(body, 16 << 3 | 5);
    body.extend_from_slice(&(u32::from(context.trace_flags().to_u8()) | remote).to_le_bytes());
}

fn write_attribute(body: &mut Vec<u8>, field: u64, key: &str, value: &Value) {
    write_message(body, field, |body| {
        write_bytes(body, 1, key.as_bytes());
        write_message(body, 2, |body| match value {
            Value::Bool(truth) => body.extend_from_slice(&[2 << 3, u8::from(*truth)]),
            Value::I64(number) => {
                body.push(3 << 3);
                write_varint(body, number.cast_unsigned());
            }
            Value::F64(number) => {
                body.push(4 << 3 | 1);
                body.extend_from_slice(&number.to_le_bytes());
            }
            // Arrays, which the benchmark does not record, would be written as text.
            other => write_bytes(body, 1, other.as_str().as_bytes()),
        });
    });
}

fn write_time(body: &mut Vec<u8>, field: u64, time: SystemTime) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    write_varint(body, field << 3 | 1);
    body.extend_from_slice(&(since_epoch.as_nanos() as u64).to_le_bytes());
}

/// Writes a number field unless the number is zero, the default.
fn write_number(body: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        write_varint(body, field << 3);
        write_varint(body, number);
    }
}

/// Writes a bytes or string field unless it is empty.
fn write_bytes(body: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_varint(body, field << 3 | 2);
        write_varint(body, bytes.len() as u64);
        body.extend_from_slice(bytes);
    }
}

/// Writes a nested message and inserts its length before it. Lengths up to 127 fit into the reserved byte.
fn write_message(body: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    write_varint(body, field << 3 | 2);
    let start = body.len();
    body.push(0);
    write(body);
    let length = body.len() - start - 1;
    if length < 0x80 {
        body[start] = length as u8;
    } else {
        body[start] = length as u8 | 0x80;
        let end = body.len();
        write_varint(body, (length >> 7) as u64);
        let added = body.len() - end;
        body[start + 1..].rotate_right(added);
    }
}

fn write_varint(body: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        body.push(number as u8 | 0x80);
        number >>= 7;
    }
    body.push(number as u8);
}
