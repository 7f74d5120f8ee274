//! Log records: from the log layer through the SDK into the queue, and on the export thread from the queue into a
//! request.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogProcessor, SdkLogRecord};

use super::queue::Queue;

/// A record with the scope that it was made in.
pub(crate) type LogEntry = (SdkLogRecord, InstrumentationScope);

/// Puts log records into the queue.
#[derive(Debug)]
pub(crate) struct QueuedLogs(pub(crate) Arc<Queue<LogEntry>>);

impl LogProcessor for QueuedLogs {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.0.push((record.clone(), scope.clone()));
    }

    /// Asks for an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.0.flush();
        Ok(())
    }

    /// Takes no more records; the export thread sees to those that wait.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.close();
        Ok(())
    }
}

/// The request of a batch, which is left empty.
pub(crate) fn request(resource: &Resource, batch: &mut Vec<LogEntry>) -> ExportLogsServiceRequest {
    let entries: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
    let resource_logs = group_logs_by_resource_and_scope(
        &LogBatch::new(&entries),
        &ResourceAttributesWithSchema::from(resource),
    );
    batch.clear();
    ExportLogsServiceRequest { resource_logs }
}
