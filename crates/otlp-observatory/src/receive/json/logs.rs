//! Messages of `opentelemetry/proto/logs/v1/logs.proto`.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};

use super::{
    fields::{List, Object, message},
    scalars::{Enumeration, Hex, Integer, Names, Text},
};

message!(ExportLogsServiceRequest {
    "resourceLogs" => resource_logs: List<ResourceLogs>,
});

message!(ResourceLogs {
    "resource" => optional resource: Object<Resource>,
    "scopeLogs" => scope_logs: List<ScopeLogs>,
    "schemaUrl" => schema_url: Text,
});

message!(ScopeLogs {
    "scope" => optional scope: Object<InstrumentationScope>,
    "logRecords" => log_records: List<LogRecord>,
    "schemaUrl" => schema_url: Text,
});

message!(LogRecord {
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "observedTimeUnixNano" => observed_time_unix_nano: Integer<u64>,
    "severityNumber" => severity_number: Enumeration<SeverityNumber>,
    "severityText" => severity_text: Text,
    "body" => optional body: Object<AnyValue>,
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
    "flags" => flags: Integer<u32>,
    "traceId" => trace_id: Hex,
    "spanId" => span_id: Hex,
    "eventName" => event_name: Text,
});

impl Names for SeverityNumber {
    fn number(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}
