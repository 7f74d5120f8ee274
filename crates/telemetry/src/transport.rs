//! The SDK's exporters over [`crate::otlp`]. The SDK exports from threads of its own that have no runtime, so one thread
//! with a small runtime does the sending for all signals.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{Otlp, Signal};
use crate::otlp::{Request, Sender, TransportError};

/// One signal's exporter.
#[derive(Debug)]
pub(crate) struct Exporter {
    sender: Arc<Mutex<Sender>>,
    runtime: Handle,
    resource: ResourceAttributesWithSchema,
    timeout: Duration,
    temporality: Temporality,
    attribute_limit: usize,
}

impl Exporter {
    /// `timeout` is that of the SDK's batches, beside the exporter's own.
    pub(crate) fn new(
        signal: Signal,
        otlp: &Otlp,
        timeout: Duration,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TransportError> {
        let runtime = runtime()?;
        let _inside = runtime.enter();
        Ok(Self {
            sender: Arc::new(Mutex::new(Sender::new(signal, otlp, warnings)?)),
            runtime: runtime.clone(),
            resource: ResourceAttributesWithSchema::default(),
            timeout,
            temporality: Temporality::Cumulative,
            attribute_limit: usize::MAX,
        })
    }

    pub(crate) fn with_temporality(self, temporality: Temporality) -> Self {
        Self { temporality, ..self }
    }

    /// The most attributes of a log record.
    pub(crate) fn with_attribute_limit(self, attribute_limit: usize) -> Self {
        Self {
            attribute_limit,
            ..self
        }
    }

    async fn send(&self, request: Request) -> OTelSdkResult {
        let sender = Arc::clone(&self.sender);
        let deadline = Instant::now() + self.timeout;
        let sending = async move { sender.lock().await.send(&request, deadline).await };
        match self.runtime.spawn(sending).await {
            Ok(Ok(accepted)) => {
                if accepted != crate::otlp::Accepted::default() {
                    tracing::debug!(
                        target: crate::export::TARGET,
                        rejected = accepted.rejected,
                        message = accepted.message.as_deref(),
                        "the collector took a part"
                    );
                }
                Ok(())
            }
            Ok(Err(error)) => Err(OTelSdkError::InternalFailure(format!(
                "{}: {error}",
                error.error_type
            ))),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }
}

fn runtime() -> Result<Handle, TransportError> {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = RUNTIME.get() {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("otlp".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(RUNTIME.get_or_init(|| handle).clone())
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        self.send(Request::Traces(ExportTraceServiceRequest { resource_spans }))
            .await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl LogExporter for Exporter {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let mut resource_logs = group_logs_by_resource_and_scope(&batch, &self.resource);
        let scopes = resource_logs.iter_mut().flat_map(|group| &mut group.scope_logs);
        for log in scopes.flat_map(|scope| &mut scope.log_records) {
            let dropped = log.attributes.len().saturating_sub(self.attribute_limit);
            log.attributes.truncate(self.attribute_limit);
            log.dropped_attributes_count += u32::try_from(dropped).unwrap_or(u32::MAX);
        }
        self.send(Request::Logs(ExportLogsServiceRequest { resource_logs }))
            .await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl PushMetricExporter for Exporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let request = ExportMetricsServiceRequest::from(metrics);
        self.send(Request::Metrics(request)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}
