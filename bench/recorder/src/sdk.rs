//! The spans of the OpenTelemetry SDK, with three ways to export them.

use std::time::Duration;

use opentelemetry::trace::{Span, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, TracerProviderBuilder};
use otlp_recorder::Pipeline;

use crate::Result;
use crate::direct::DirectExporter;
use crate::recorder;
use crate::request::{self, Request, Variant};

pub struct Sdk {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Pipeline that exports the spans in place of the SDK's batch processor.
    pipeline: Option<Pipeline>,
}

/// Returns a builder of a provider with the resource of every variant.
fn provider() -> TracerProviderBuilder {
    let resource = Resource::builder_empty()
        .with_service_name(request::SERVICE)
        .build();
    SdkTracerProvider::builder().with_resource(resource)
}

/// Returns the exporter of opentelemetry-otlp.
pub fn otlp_exporter(endpoint: &str) -> Result<SpanExporter> {
    let traces = format!("{endpoint}/v1/traces");
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary);
    Ok(exporter.with_endpoint(traces).build()?)
}

/// Returns a provider with the SDK's batch processor and opentelemetry-otlp.
pub fn otlp_provider(endpoint: &str) -> Result<SdkTracerProvider> {
    let processor = BatchSpanProcessor::builder(otlp_exporter(endpoint)?).build();
    Ok(provider().with_span_processor(processor).build())
}

impl Sdk {
    fn new(provider: SdkTracerProvider, pipeline: Option<Pipeline>) -> Self {
        let tracer = provider.tracer(request::SCOPE);
        Self {
            provider,
            tracer,
            pipeline,
        }
    }

    /// Exports with the batch processor and opentelemetry-otlp.
    pub fn with_otlp(endpoint: &str) -> Result<Self> {
        Ok(Self::new(otlp_provider(endpoint)?, None))
    }

    /// Exports with the batch processor and an exporter that writes protobuf without structs.
    pub fn with_direct_exporter(endpoint: &str) -> Result<Self> {
        let processor = BatchSpanProcessor::builder(DirectExporter::new(endpoint)?).build();
        Ok(Self::new(provider().with_span_processor(processor).build(), None))
    }

    /// Exports with the span processor of otlp-recorder.
    pub fn with_recorder(endpoint: &str) -> Result<Self> {
        let pipeline = recorder::pipeline(endpoint);
        let processor = pipeline.span_processor().ok_or("the pipeline exports no spans")?;
        let provider = provider().with_span_processor(processor).build();
        Ok(Self::new(provider, Some(pipeline)))
    }
}

impl Variant for Sdk {
    fn request(&self, request: &Request) {
        let builder = self
            .tracer
            .span_builder(request::SPAN_NAME)
            .with_kind(SpanKind::Server);
        let server = builder.with_attributes(vec![
            KeyValue::new("http.request.method", request::METHOD),
            KeyValue::new("http.route", request::ROUTE),
            KeyValue::new("url.path", request.path.clone()),
            KeyValue::new("url.scheme", request::SCHEME),
            KeyValue::new("server.address", request::HOST),
            KeyValue::new("server.port", request::PORT),
            KeyValue::new("network.protocol.version", request::HTTP_VERSION),
            KeyValue::new("client.address", request.client.clone()),
            KeyValue::new("user_agent.original", request.user_agent.clone()),
        ]);
        let server = self.tracer.build_with_context(server, &Context::current());
        let context = Context::current_with_span(server);
        let attached = context.clone().attach();
        let builder = self
            .tracer
            .span_builder(request::STATEMENT_NAME)
            .with_kind(SpanKind::Client);
        let statement = builder.with_attributes(vec![
            KeyValue::new("db.system.name", request::DATABASE_SYSTEM),
            KeyValue::new("db.namespace", request::DATABASE),
            KeyValue::new("db.operation.name", request::OPERATION),
            KeyValue::new("db.collection.name", request::TABLE),
            KeyValue::new("db.query.text", request::QUERY),
            KeyValue::new("server.address", request::DATABASE_HOST),
            KeyValue::new("server.port", request::DATABASE_PORT),
        ]);
        self.tracer
            .build_with_context(statement, &Context::current())
            .end();
        drop(attached);
        let status = KeyValue::new("http.response.status_code", request::STATUS);
        context.span().set_attribute(status);
        context.span().end();
    }

    fn end_batch(&self) -> Result {
        // The processor of otlp-recorder needs no flush, and an asynchronous one would split the next batch.
        if self.pipeline.is_none() {
            self.provider.force_flush()?;
        }
        Ok(())
    }

    fn shutdown(self: Box<Self>) -> Result {
        self.provider.shutdown()?;
        match self.pipeline {
            Some(pipeline) => Ok(pipeline.shutdown(Duration::from_secs(10))?),
            None => Ok(()),
        }
    }
}
