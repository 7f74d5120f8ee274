//! Log events: each goes once to standard output (readable on a terminal, JSON lines otherwise) and once to the OTLP
//! logger, with the trace and span in force. A layer of our own and not the upstream bridge, because a record's
//! attributes cannot be masked once the bridge has set them, and a bridge gives neither `code.*` nor `otelTraceID`.
//! Events of the crate `log` come through it as well.

mod events;
mod fields;
mod line;
mod panics;
mod place;

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;
use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, Severity};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer;

use crate::export::truncated;
use crate::mask::mask;
use crate::names::attribute;
pub use events::function;
use fields::Fields;
pub(crate) use line::Format;
pub(crate) use panics::log_panics;
pub use panics::panic_message;
use place::Place;

/// Crates that the exporters are made of; their events never go to the exporters.
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

/// Makes events of the crate `log` events of `tracing`, as far as `RUST_LOG` lets any through.
///
/// # Errors
/// When the program has a logger for `log` already; that one stays.
pub(crate) fn bridge_log() -> Result<(), impl std::error::Error> {
    let most = match tracing::level_filters::LevelFilter::current().into_level() {
        None => tracing_log::log::LevelFilter::Off,
        Some(level) => tracing_log::AsLog::as_log(&level).to_level_filter(),
    };
    tracing_log::LogTracer::builder().with_max_level(most).init()
}

thread_local! {
    static EXPORTS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the events of this thread, whatever crate they are from, off the exporters: it runs them.
pub(crate) fn keep_this_thread_off_the_exporters() {
    EXPORTS.set(true);
}

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
        // Those of `log` share one callsite; where they are from is in their fields.
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
        let place = Place::of(metadata, &mut fields);

        let line = self.format.line(metadata, &place, &fields, span.as_ref());
        // Nobody is left to tell when standard output is closed.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());

        if let Some(logger) = &self.logger
            && !EXPORTS.get()
            && !is_of_exporter(metadata.target())
        {
            let mut record = logger.create_log_record();
            // Events without a name of their own have one made of file and line, or of nothing.
            let name = event.metadata().name();
            if normalised.is_none() && !name.starts_with("event ") {
                record.set_event_name(name);
            }
            record.set_target(metadata.target().to_owned());
            record.set_severity_number(severity(metadata.level()));
            record.set_severity_text(metadata.level().as_str());
            self.fill(&mut record, place, fields, span.as_ref());
            logger.emit(record);
        }
    }
}

impl LogLayer {
    fn fill(&self, record: &mut SdkLogRecord, place: Place, fields: Fields, span: Option<&SpanContext>) {
        record.set_timestamp(SystemTime::now());
        if let Some(span) = span {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
            record.add_attribute(attribute::OTEL_TRACE_ID, span.trace_id().to_string());
            record.add_attribute(attribute::OTEL_SPAN_ID, span.span_id().to_string());
        }
        if let Some(file) = place.file {
            record.add_attribute(place::FILE, file);
        }
        if let Some(function) = place.function {
            record.add_attribute(place::FUNCTION, function);
        }
        if let Some(line) = place.line {
            record.add_attribute(place::LINE, line);
        }
        if let Some(message) = fields.message {
            record.set_body(message.into());
        }
        for (name, value) in fields.others {
            record.add_attribute(name, self.limited(value));
        }
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
