//! Spans of otlp-recorder. The statement's attributes, which never change, can be prewritten.

use std::time::Duration;

use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use otlp_recorder::{Attributes, Collector, Pipeline, PrewrittenAttributes, Protocol, SpanStart, Tracer};

use crate::Result;
use crate::request::{self, Request, Variant};

pub struct Recorder {
    pipeline: Pipeline,
    tracer: Tracer,
    statement: Option<PrewrittenAttributes>,
}

/// Starts a pipeline that masks the text of spans like otel-service, and exports them to `endpoint`.
pub fn pipeline(endpoint: &str) -> Pipeline {
    let resource = Resource::builder_empty()
        .with_service_name(request::SERVICE)
        .build();
    let traces = format!("{endpoint}/v1/traces");
    Pipeline::builder()
        .resource(resource)
        .redact(otel_service::mask)
        .spans(Collector::new(Protocol::HttpProtobuf, traces))
        .start()
}

impl Recorder {
    pub fn start(endpoint: &str, prewritten: bool) -> Self {
        let pipeline = pipeline(endpoint);
        let scope = InstrumentationScope::builder(request::SCOPE).build();
        Self {
            tracer: pipeline.recorder().tracer(scope),
            pipeline,
            statement: prewritten.then(PrewrittenAttributes::new),
        }
    }
}

impl Variant for Recorder {
    fn request(&self, request: &Request) {
        let start = SpanStart::new(request::SPAN_NAME, SpanKind::Server);
        let server = self.tracer.start(&Context::current(), start, |into| {
            into.literal("http.request.method", request::METHOD);
            into.literal("http.route", request::ROUTE);
            into.text("url.path", &request.path);
            into.literal("url.scheme", request::SCHEME);
            into.literal("server.address", request::HOST);
            into.number("server.port", request::PORT);
            into.literal("network.protocol.version", request::HTTP_VERSION);
            into.text("client.address", &request.client);
            into.text("user_agent.original", &request.user_agent);
        });
        let context = Context::current_with_span(server);
        let attached = context.clone().attach();
        let start = SpanStart::new(request::STATEMENT_NAME, SpanKind::Client);
        let mut statement = self
            .tracer
            .start(&Context::current(), start, |into| match &self.statement {
                Some(prewritten) => prewritten.write(into, describe_statement),
                None => describe_statement(into),
            });
        opentelemetry::trace::Span::end(&mut statement);
        drop(attached);
        let status = KeyValue::new("http.response.status_code", request::STATUS);
        context.span().set_attribute(status);
        context.span().end();
    }

    fn shutdown(self: Box<Self>) -> Result {
        Ok(self.pipeline.shutdown(Duration::from_secs(10))?)
    }
}

fn describe_statement(into: &mut Attributes) {
    into.literal("db.system.name", request::DATABASE_SYSTEM);
    into.literal("db.namespace", request::DATABASE);
    into.literal("db.operation.name", request::OPERATION);
    into.literal("db.collection.name", request::TABLE);
    into.literal("db.query.text", request::QUERY);
    into.literal("server.address", request::DATABASE_HOST);
    into.number("server.port", request::DATABASE_PORT);
}
