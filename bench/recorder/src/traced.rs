//! Spans of `tracing`, exported by tracing-opentelemetry through the SDK and opentelemetry-otlp, or by
//! otlp-recorder's `SpanLayer`. Attributes that tracing-opentelemetry would add (source location, thread, target,
//! busy time) are turned off. `SpanLayer` records the source location, and keeps the fields for log records.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use otlp_recorder::{Pipeline, SpanLayer};
use tracing::field::Empty;
use tracing::info_span;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::request::{self, Request, Variant};
use crate::{Result, recorder, sdk};

pub struct Traced {
    provider: SdkTracerProvider,
}

impl Traced {
    pub fn start(endpoint: &str) -> Result<Self> {
        let provider = sdk::otlp_provider(endpoint)?;
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_tracer(provider.tracer(request::SCOPE));
        tracing::subscriber::set_global_default(Registry::default().with(layer))?;
        Ok(Self { provider })
    }
}

impl Variant for Traced {
    fn request(&self, request: &Request) {
        record(request);
    }

    fn end_batch(&self) -> Result {
        Ok(self.provider.force_flush()?)
    }

    fn shutdown(self: Box<Self>) -> Result {
        Ok(self.provider.shutdown()?)
    }
}

pub struct Layered {
    pipeline: Pipeline,
}

impl Layered {
    pub fn start(endpoint: &str) -> Result<Self> {
        let pipeline = recorder::pipeline(endpoint);
        let layer = SpanLayer::new(pipeline.recorder()).keep_fields();
        // As in otel-service, the layer has its own filter.
        let layer = layer.with_filter(
            Targets::new()
                .with_default(LevelFilter::DEBUG)
                .with_target("h2", LevelFilter::OFF),
        );
        tracing::subscriber::set_global_default(Registry::default().with(layer))?;
        Ok(Self { pipeline })
    }
}

impl Variant for Layered {
    fn request(&self, request: &Request) {
        record(request);
    }

    fn shutdown(self: Box<Self>) -> Result {
        Ok(self.pipeline.shutdown(Duration::from_secs(10))?)
    }
}

fn record(request: &Request) {
    let server = info_span!(
        "GET /api/articles/{slug}",
        otel.kind = "server",
        http.request.method = request::METHOD,
        http.route = request::ROUTE,
        url.path = request.path,
        url.scheme = request::SCHEME,
        server.address = request::HOST,
        server.port = request::PORT,
        network.protocol.version = request::HTTP_VERSION,
        client.address = request.client,
        user_agent.original = request.user_agent,
        http.response.status_code = Empty,
    );
    server.in_scope(|| {
        info_span!(
            "SELECT articles",
            otel.kind = "client",
            db.system.name = request::DATABASE_SYSTEM,
            db.namespace = request::DATABASE,
            db.operation.name = request::OPERATION,
            db.collection.name = request::TABLE,
            db.query.text = request::QUERY,
            server.address = request::DATABASE_HOST,
            server.port = request::DATABASE_PORT,
        )
        .in_scope(|| ());
    });
    server.record("http.response.status_code", request::STATUS);
}
