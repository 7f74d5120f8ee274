//! Log events. Each event is added to the queue of the log output, as text or JSON, and passed to the OTLP
//! logger, with the current trace and span. Events of the `log` crate are included.
//!
//! The upstream bridge is not used: it sets attributes that cannot be masked afterwards, and adds neither
//! `code.*` nor `otelTraceID`.

mod events;
mod fields;
mod line;
mod location;
mod panics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, Severity};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger};
use otlp_recorder::SpanLayer;
use otlp_recorder::{LOG_TARGET, is_export_thread};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_log::log::Level::Error;
use tracing_subscriber::layer;
use tracing_subscriber::registry::LookupSpan;

use crate::mask::mask;
use crate::names::attribute;
use crate::output::Output;
pub use events::function;
use fields::Fields;
pub(crate) use line::Format;
use location::CodeLocation;
pub use panics::panic_message;
pub(crate) use panics::{log_panics, show_panic_messages};

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

/// Forwards the events of the `log` crate up to `max_level` to `tracing`.
///
/// # Errors
///
/// Fails if the program has already set a logger for `log`, which then stays in use.
pub(crate) fn bridge_log(max_level: LevelFilter) -> Result<(), impl std::error::Error> {
    let max_level = match max_level.into_level() {
        None => tracing_log::log::LevelFilter::Off,
        Some(level) => tracing_log::AsLog::as_log(&level).to_level_filter(),
    };
    match tracing_log::LogTracer::builder().with_max_level(max_level).init() {
        Err(_) if forwards_to_tracing() => Ok(()),
        result => result,
    }
}

/// Whether the logger of `log` asks the subscriber of `tracing`, as that of `tracing-log` does.
fn forwards_to_tracing() -> bool {
    let asked = Asked::default();
    let was_asked = Arc::clone(&asked.0);
    tracing::subscriber::with_default(asked, || {
        let metadata = tracing_log::log::Metadata::builder().level(Error).build();
        tracing_log::log::logger().enabled(&metadata)
    });
    was_asked.load(Ordering::Relaxed)
}

/// A subscriber that remembers whether it was asked for an event.
#[derive(Default)]
struct Asked(Arc<AtomicBool>);

impl Subscriber for Asked {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.0.store(true, Ordering::Relaxed);
        false
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

/// Writes and exports log events.
#[derive(Debug)]
pub(crate) struct LogEvents {
    /// Logger of the OTLP pipeline; `None` when logs are not exported.
    pub(crate) logger: Option<SdkLogger>,
    /// Stream of the lines and their format; `None` when no lines are written.
    pub(crate) output: Option<(&'static Output, Format)>,
    pub(crate) masking: bool,
    /// Whether records have the attributes of Python's instrumentation.
    pub(crate) python_names: bool,
    /// Maximum length of a string attribute, in characters.
    pub(crate) value_limit: Option<usize>,
}

impl LogEvents {
    /// Whether events are written or exported.
    pub(crate) fn is_used(&self) -> bool {
        self.logger.is_some() || self.output.is_some()
    }

    /// Writes and exports `event`, with those fields of the enclosing spans that it does not have itself.
    pub(crate) fn add<S>(&self, event: &Event<'_>, cx: &layer::Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // All events of `log` share one callsite; their own metadata is in their fields.
        let normalised = event.normalized_metadata();
        let metadata = normalised.as_ref().unwrap_or_else(|| event.metadata());
        if is_repeated_export_error(metadata) {
            return;
        }
        let mut fields = Fields::of(event);
        if normalised.is_some() {
            fields.remove_metadata();
        }
        if self.masking {
            fields.mask(mask);
        }
        let location = CodeLocation::of(metadata, &mut fields);
        // The fields of spans are masked already.
        for span in cx.event_scope(event).into_iter().flatten() {
            fields.add_missing(SpanLayer::fields(&span));
        }
        let span = span_context(event, cx);
        let span = span.is_valid().then_some(span);

        // `tracing` gives an unnamed event a name made from its file and line.
        let name = event.metadata().name();
        let name = (normalised.is_none() && !name.starts_with("event ")).then_some(name);
        self.emit(
            *metadata.level(),
            metadata.target(),
            name,
            location,
            fields,
            span.as_ref(),
        );
    }

    /// Writes and exports a warning of this crate.
    pub(crate) fn warn(&self, warning: &str) {
        let fields = Fields {
            message: Some(warning.to_owned()),
            others: Vec::new(),
        };
        let location = CodeLocation::UNKNOWN;
        self.emit(
            Level::WARN,
            env!("CARGO_CRATE_NAME"),
            None,
            location,
            fields,
            None,
        );
    }

    fn emit(
        &self,
        level: Level,
        target: &str,
        name: Option<&'static str>,
        location: CodeLocation,
        fields: Fields,
        span: Option<&SpanContext>,
    ) {
        if let Some((output, format)) = self.output {
            output.write(format.line(level, target, &location, &fields, span));
        }
        if let Some(logger) = &self.logger
            && !is_export_thread()
            && !is_of_exporter(target)
        {
            let mut record = logger.create_log_record();
            if let Some(name) = name {
                record.set_event_name(name);
            }
            record.set_target(target.to_owned());
            record.set_severity_number(severity(&level));
            record.set_severity_text(level.as_str());
            self.fill(&mut record, location, fields, span);
            logger.emit(record);
        }
    }

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
            if self.python_names {
                record.add_attribute(attribute::OTEL_TRACE_ID, span.trace_id().to_string());
                record.add_attribute(attribute::OTEL_SPAN_ID, span.span_id().to_string());
            }
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
        let Some(limit) = self.value_limit else {
            return value;
        };
        match value {
            AnyValue::String(text) => match text.as_str().char_indices().nth(limit) {
                Some((end, _)) => text.as_str()[..end].to_owned().into(),
                None => AnyValue::String(text),
            },
            AnyValue::ListAny(items) => {
                let items = items.into_iter().map(|item| self.limited(item));
                AnyValue::ListAny(Box::new(items.collect()))
            }
            AnyValue::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (key, self.limited(value)));
                AnyValue::Map(Box::new(entries.collect()))
            }
            other => other,
        }
    }
}

/// Returns the span of an event: its explicit parent, or the current span of either API.
fn span_context<S>(event: &Event<'_>, cx: &layer::Context<'_, S>) -> SpanContext
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let explicit = event
        .parent()
        .and_then(|parent| SpanLayer::context(&cx.span(parent)?));
    match explicit {
        Some(cx) => cx.span().span_context().clone(),
        None if event.is_root() => SpanContext::NONE,
        None => Context::map_current(|cx| cx.span().span_context().clone()),
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
