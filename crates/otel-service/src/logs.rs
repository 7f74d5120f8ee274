//! Log events. Each event is written to standard output (as text on a terminal, otherwise as JSON lines) and
//! to the OTLP logger, with the current trace and span. Events of the `log` crate are included.
//!
//! The upstream bridge is not used: it sets attributes that cannot be masked afterwards, and adds neither
//! `code.*` nor `otelTraceID`.

mod events;
mod fields;
mod line;
mod location;
mod panics;

use std::io::Write;
use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, Severity};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger};
use otlp_recorder::{LOG_TARGET, is_export_thread};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer;

use crate::mask::mask;
use crate::names::attribute;
pub use events::function;
use fields::Fields;
pub(crate) use line::Format;
use location::CodeLocation;
pub(crate) use panics::log_panics;
pub use panics::panic_message;

/// Dependencies of the exporters. Their events are never exported, because each export would cause further
/// events.
const EXPORTER_CRATES: [&str; 13] = [
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "hyper_timeout",
    "reqwest",
    "h2",
    "tonic",
    "tower",
    "rustls",
    "rustls_native_certs",
    "rustls_platform_verifier",
    "tokio_rustls",
    "webpki",
];

/// Forwards the events of the `log` crate to `tracing`, up to the level enabled by `RUST_LOG`.
///
/// # Errors
///
/// Fails if the program has already set a logger for `log`, which then stays in use.
pub(crate) fn bridge_log() -> Result<(), impl std::error::Error> {
    let max_level = match tracing::level_filters::LevelFilter::current().into_level() {
        None => tracing_log::log::LevelFilter::Off,
        Some(level) => tracing_log::AsLog::as_log(&level).to_level_filter(),
    };
    tracing_log::LogTracer::builder().with_max_level(max_level).init()
}

/// The `tracing` layer that writes and exports log events.
#[derive(Debug)]
pub(crate) struct LogLayer {
    /// Logger of the OTLP pipeline; `None` when logs are not exported.
    pub(crate) logger: Option<SdkLogger>,
    pub(crate) format: Format,
    pub(crate) masking: bool,
    /// Maximum length of a string attribute, in characters.
    pub(crate) value_limit: Option<usize>,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        // All events of `log` share one callsite; their own metadata is in their fields.
        let normalised = event.normalized_metadata();
        let metadata = normalised.as_ref().unwrap_or_else(|| event.metadata());
        if is_repeated_export_error(metadata) {
            return;
        }
        let mut fields = Fields::of(event);
        if self.masking {
            fields.mask(mask);
        }
        let span = Context::map_current(|cx| cx.span().span_context().clone());
        let span = span.is_valid().then_some(span);
        let location = CodeLocation::of(metadata, &mut fields);

        let line = self.format.line(metadata, &location, &fields, span.as_ref());
        // A closed standard output cannot be reported anywhere.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());

        if let Some(logger) = &self.logger
            && !is_export_thread()
            && !is_of_exporter(metadata.target())
        {
            let mut record = logger.create_log_record();
            // `tracing` gives an unnamed event a name made from its file and line.
            let name = event.metadata().name();
            if normalised.is_none() && !name.starts_with("event ") {
                record.set_event_name(name);
            }
            record.set_target(metadata.target().to_owned());
            record.set_severity_number(severity(metadata.level()));
            record.set_severity_text(metadata.level().as_str());
            self.fill(&mut record, location, fields, span.as_ref());
            logger.emit(record);
        }
    }
}

impl LogLayer {
    fn fill(
        &self,
        record: &mut SdkLogRecord,
        location: CodeLocation,
        fields: Fields,
        span: Option<&SpanContext>,
    ) {
        record.set_timestamp(SystemTime::now());
        if let Some(span) = span {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
            record.add_attribute(attribute::OTEL_TRACE_ID, span.trace_id().to_string());
            record.add_attribute(attribute::OTEL_SPAN_ID, span.span_id().to_string());
        }
        if let Some(file) = location.file {
            record.add_attribute(location::FILE, file);
        }
        if let Some(function) = location.function {
            record.add_attribute(location::FUNCTION, function);
        }
        if let Some(line) = location.line {
            record.add_attribute(location::LINE, line);
        }
        if let Some(message) = fields.message {
            record.set_body(message.into());
        }
        for (name, value) in fields.others {
            record.add_attribute(name, self.limited(value));
        }
    }

    fn limited(&self, value: AnyValue) -> AnyValue {
        if let (AnyValue::String(text), Some(limit)) = (&value, self.value_limit)
            && let Some((end, _)) = text.as_str().char_indices().nth(limit)
        {
            return AnyValue::from(text.as_str()[..end].to_owned());
        }
        value
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

/// Whether an event comes from the exporters themselves; exporting it would cause further events.
fn is_of_exporter(target: &str) -> bool {
    let source = target.split("::").next().unwrap_or(target);
    target == LOG_TARGET || source.starts_with("opentelemetry") || EXPORTER_CRATES.contains(&source)
}

/// Whether an event is the SDK's report of a failed export. The exporter itself logs each outage once.
fn is_repeated_export_error(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("opentelemetry") && metadata.name().ends_with("ExportError")
}
