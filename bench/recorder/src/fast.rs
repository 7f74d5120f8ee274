//! Spans of fastrace, exported by its OpenTelemetry reporter and opentelemetry-otlp. Its properties are
//! strings, including the ports and the status code.

use std::borrow::Cow;

use fastrace::Span;
use fastrace::collector::{Config, SpanContext};
use fastrace_opentelemetry::{OpenTelemetryReporter, SPAN_KIND};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use crate::Result;
use crate::request::{self, Request, Variant};
use crate::sdk;

pub struct Fast;

impl Fast {
    pub fn start(endpoint: &str) -> Result<Self> {
        let resource = Resource::builder_empty()
            .with_service_name(request::SERVICE)
            .build();
        let scope = InstrumentationScope::builder(request::SCOPE).build();
        let exporter = sdk::otlp_exporter(endpoint)?;
        let reporter = OpenTelemetryReporter::new(exporter, Cow::Owned(resource), scope);
        fastrace::set_reporter(reporter, Config::default());
        Ok(Self)
    }
}

type Property = (&'static str, Cow<'static, str>);

fn property(key: &'static str, value: impl Into<Cow<'static, str>>) -> Property {
    (key, value.into())
}

impl Variant for Fast {
    fn request(&self, request: &Request) {
        let server = Span::root(request::SPAN_NAME, SpanContext::random()).with_properties(|| {
            [
                property(SPAN_KIND, "server"),
                property("http.request.method", request::METHOD),
                property("http.route", request::ROUTE),
                property("url.path", request.path.clone()),
                property("url.scheme", request::SCHEME),
                property("server.address", request::HOST),
                property("server.port", request::PORT.to_string()),
                property("network.protocol.version", request::HTTP_VERSION),
                property("client.address", request.client.clone()),
                property("user_agent.original", request.user_agent.clone()),
            ]
        });
        let local = server.set_local_parent();
        let statement = Span::enter_with_local_parent(request::STATEMENT_NAME).with_properties(|| {
            [
                property(SPAN_KIND, "client"),
                property("db.system.name", request::DATABASE_SYSTEM),
                property("db.namespace", request::DATABASE),
                property("db.operation.name", request::OPERATION),
                property("db.collection.name", request::TABLE),
                property("db.query.text", request::QUERY),
                property("server.address", request::DATABASE_HOST),
                property("server.port", request::DATABASE_PORT.to_string()),
            ]
        });
        drop(statement);
        drop(local);
        server.add_property(|| property("http.response.status_code", request::STATUS.to_string()));
    }

    fn end_batch(&self) -> Result {
        fastrace::flush();
        Ok(())
    }

    fn shutdown(self: Box<Self>) -> Result {
        fastrace::flush();
        Ok(())
    }
}
