//! Log events: each goes once to standard output (readable on a terminal, JSON lines otherwise) and once to the OTLP
//! logger, with the trace and span in force. A layer of our own and not the upstream bridge, because a record's
//! attributes cannot be masked once the bridge has set them, and a bridge gives neither `code.*` nor `otelTraceID`.

mod fields;
mod line;

use std::borrow::Cow;
use std::io::Write;
use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, Severity};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::logs::SdkLogger;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer;

use crate::export::truncated;
use crate::mask::mask;
use fields::Fields;
pub(crate) use line::Format;

/// Crates that the exporters are made of; their events never go to the exporters.
const EXPORTER_CRATES: [&str; 9] = [
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "reqwest",
    "h2",
    "rustls",
    "rustls_platform_verifier",
    "tonic",
    "tower",
];

/// The `tracing` layer of this crate.
#[derive(Debug)]
pub(crate) struct LogLayer {
    /// Where OTLP records go; `None` when logs are not exported.
    pub(crate) logger: Option<SdkLogger>,
    pub(crate) format: Format,
    pub(crate) masking: bool,
    /// The longest attribute text in characters.
    pub(crate) value_limit: Option<usize>,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let metadata = event.metadata();
        if is_repeated_export_error(metadata) {
            return;
        }
        let mut fields = Fields::of(event);
        if self.masking {
            fields.mask(mask);
        }
        let span = Context::map_current(|cx| cx.span().span_context().clone());
        let span = span.is_valid().then_some(span);

        let line = self.format.line(metadata, &fields, span.as_ref());
        // Nobody is left to tell when standard output is closed.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());

        if let Some(logger) = &self.logger
            && !is_of_exporter(metadata.target())
        {
            self.emit(logger, metadata, fields, span.as_ref());
        }
    }
}

impl LogLayer {
    fn emit(
        &self,
        logger: &SdkLogger,
        metadata: &'static Metadata<'static>,
        fields: Fields,
        span: Option<&SpanContext>,
    ) {
        let mut record = logger.create_log_record();
        record.set_timestamp(SystemTime::now());
        record.set_target(metadata.target());
        record.set_severity_number(severity(metadata.level()));
        record.set_severity_text(metadata.level().as_str());
        // Events without a name of their own have one made of file and line.
        if !metadata.name().starts_with("event ") {
            record.set_event_name(metadata.name());
        }
        if let Some(span) = span {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
            record.add_attribute("otelTraceID", span.trace_id().to_string());
            record.add_attribute("otelSpanID", span.span_id().to_string());
        }
        if let Some(file) = metadata.file() {
            record.add_attribute("code.file.path", within_crates(file));
        }
        // The function is not known to `tracing`; the module is the nearest.
        if let Some(module) = metadata.module_path() {
            record.add_attribute("code.function.name", module);
        }
        if let Some(line) = metadata.line() {
            record.add_attribute("code.line.number", i64::from(line));
        }
        if let Some(message) = fields.message {
            record.set_body(message.into());
        }
        for (name, value) in fields.others {
            record.add_attribute(name, self.limited(value));
        }
        logger.emit(record);
    }

    fn limited(&self, value: AnyValue) -> AnyValue {
        match (&value, self.value_limit) {
            (AnyValue::String(text), Some(limit)) => match truncated(text.as_str(), limit) {
                Some(short) => AnyValue::from(short.to_owned()),
                None => value,
            },
            _ => value,
        }
    }
}

fn severity(level: &Level) -> Severity {
    match *level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}

/// Whether an event is the exporters' own and must not feed them.
fn is_of_exporter(target: &str) -> bool {
    let source = target.split("::").next().unwrap_or(target);
    target == crate::export::TARGET
        || source.starts_with("opentelemetry")
        || EXPORTER_CRATES.contains(&source)
}

/// The SDK reports every export that fails; [`crate::export`] reports the outage once.
fn is_repeated_export_error(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("opentelemetry") && metadata.name().ends_with("ExportError")
}

/// A way to mask text.
type Masker = fn(&str) -> Cow<'_, str>;
/// A source file's path without the place where the building machine keeps its dependencies.
pub(super) fn within_crates(file: &str) -> &str {
    let Some((_, in_registry)) = file.split_once("/registry/src/") else {
        return file;
    };
    in_registry.split_once('/').map_or(in_registry, |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_building_machines_folders_are_not_told() {
        let path = "/home/x/.cargo/registry/src/index-123/redis-1.0.0/src/lib.rs";
        assert_eq!(within_crates(path), "redis-1.0.0/src/lib.rs");
        assert_eq!(within_crates("crates/app/src/lib.rs"), "crates/app/src/lib.rs");
    }
}
