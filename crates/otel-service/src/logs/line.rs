//! Formats an event as a line of the log output.

use std::fmt::Write;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::SpanContext;
use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::fields::Fields;
use super::location::CodeLocation;
use crate::escape::escaped;
use crate::output::DROPPED;
use crate::service::LogFormat;

/// Format of the log output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Human-readable text.
    Text { colours: bool },
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Returns the chosen format; the default depends on whether the output is a terminal.
    pub(crate) fn new(chosen: LogFormat, is_terminal: bool) -> Self {
        match chosen {
            LogFormat::Auto if is_terminal => Self::Text { colours: true },
            LogFormat::Auto | LogFormat::Json => Self::Json,
            LogFormat::Text => Self::Text { colours: is_terminal },
        }
    }

    /// Formats an event, including the line feed.
    pub(super) fn line(
        self,
        level: Level,
        target: &str,
        location: &CodeLocation,
        fields: &Fields,
        span: Option<&SpanContext>,
    ) -> String {
        let mut line = String::with_capacity(256);
        match self {
            Self::Text { colours } => text(&mut line, colours, level, target, fields, span),
            Self::Json => json(&mut line, level, target, location, fields, span),
        }
        line.push('\n');
        line
    }

    /// Formats the line that reports dropped lines.
    pub(crate) fn dropped(self, count: u64) -> String {
        let fields = Fields {
            message: Some(DROPPED.to_owned()),
            others: vec![(
                "queue.dropped",
                AnyValue::Int(i64::try_from(count).unwrap_or(i64::MAX)),
            )],
        };
        self.line(
            Level::WARN,
            env!("CARGO_CRATE_NAME"),
            &CodeLocation::UNKNOWN,
            &fields,
            None,
        )
    }
}

fn json(
    line: &mut String,
    level: Level,
    target: &str,
    location: &CodeLocation,
    fields: &Fields,
    span: Option<&SpanContext>,
) {
    line.push_str("{\"timestamp\":\"");
    timestamp(line);
    put(line, format_args!("\",\"level\":\"{level}\""));
    line.push_str(",\"target\":");
    quoted(line, target);
    line.push_str(",\"message\":");
    quoted(line, fields.message.as_deref().unwrap_or_default());
    if let Some(span) = span {
        put(
            line,
            format_args!(
                ",\"trace_id\":\"{}\",\"span_id\":\"{}\"",
                span.trace_id(),
                span.span_id()
            ),
        );
    }
    if let (Some(file), Some(number)) = (&location.file, location.line) {
        line.push_str(",\"file\":");
        quoted(line, file);
        put(line, format_args!(",\"line\":{number}"));
    }
    if !fields.others.is_empty() {
        line.push_str(",\"fields\":{");
        for (index, (name, value)) in fields.others.iter().enumerate() {
            if index > 0 {
                line.push(',');
            }
            quoted(line, name);
            line.push(':');
            json_value(line, value);
        }
        line.push('}');
    }
    line.push('}');
}

fn json_value(line: &mut String, value: &AnyValue) {
    match value {
        AnyValue::Int(number) => put(line, format_args!("{number}")),
        AnyValue::Double(number) if number.is_finite() => put(line, format_args!("{number:?}")),
        AnyValue::Boolean(truth) => put(line, format_args!("{truth}")),
        AnyValue::String(text) => quoted(line, text.as_str()),
        AnyValue::ListAny(items) => {
            line.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                json_value(line, item);
            }
            line.push(']');
        }
        AnyValue::Map(entries) => {
            line.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                quoted(line, key.as_str());
                line.push(':');
                json_value(line, item);
            }
            line.push('}');
        }
        other => quoted(line, &format!("{other:?}")),
    }
}

fn text(
    line: &mut String,
    colours: bool,
    level: Level,
    target: &str,
    fields: &Fields,
    span: Option<&SpanContext>,
) {
    let [dim, italic, end] = if colours {
        ["\x1b[2m", "\x1b[3m", "\x1b[0m"]
    } else {
        [""; 3]
    };
    let colour = match level {
        _ if !colours => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    };
    line.push_str(dim);
    timestamp(line);
    put(
        line,
        format_args!("{end} {colour}{:>5}{end} {dim}{target}:{end} ", level.as_str()),
    );
    line.push_str(&escaped(fields.message.as_deref().unwrap_or_default()));
    for (name, value) in &fields.others {
        put(line, format_args!(" {italic}{name}{end}="));
        match value {
            AnyValue::Int(number) => put(line, format_args!("{number}")),
            AnyValue::Double(number) => put(line, format_args!("{number}")),
            AnyValue::Boolean(truth) => put(line, format_args!("{truth}")),
            AnyValue::String(text) => line.push_str(&escaped(text.as_str())),
            other => {
                let mut json = String::new();
                json_value(&mut json, other);
                line.push_str(&escaped(&json));
            }
        }
    }
    if let Some(span) = span {
        put(line, format_args!(" {dim}trace_id={}{end}", span.trace_id()));
    }
}

fn quoted(line: &mut String, text: &str) {
    line.push_str(&serde_json::Value::from(text).to_string());
}

fn timestamp(line: &mut String) {
    if SystemTime.format_time(&mut Writer::new(line)).is_err() {
        line.push('-');
    }
}

fn put(line: &mut String, arguments: std::fmt::Arguments<'_>) {
    line.write_fmt(arguments)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn line(format: Format) -> String {
        let span = SpanContext::new(
            TraceId::from(0xabc),
            SpanId::from(0xdef),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let fields = Fields {
            message: Some("order\u{1b}[2J\nlost".to_owned()),
            others: vec![
                ("order.id", AnyValue::Int(7)),
                ("ratio", AnyValue::Double(1.0)),
                ("first", AnyValue::Boolean(true)),
                ("name", AnyValue::from("a\"b\n")),
            ],
        };
        let location = CodeLocation {
            file: Some("src/orders.rs".to_owned()),
            line: Some(12),
            function: None,
        };
        format.line(Level::WARN, "app::orders", &location, &fields, Some(&span))
    }

    #[test]
    fn a_line_of_text_ends_with_the_trace_id_and_escapes_control_characters() {
        let coloured = line(Format::Text { colours: true });
        let plain = line(Format::Text { colours: false });
        let (_, after_timestamp) = plain.split_once(' ').unwrap();
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(strip_colours(&coloured).ends_with(after_timestamp), "{coloured}");
        assert_eq!(
            after_timestamp,
            " WARN app::orders: order\\u{1b}[2J\\nlost order.id=7 ratio=1 first=true name=a\"b\\n \
             trace_id=00000000000000000000000000000abc\n"
        );
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = line(Format::Json);
        assert_eq!(line.lines().count(), 1);
        let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let timestamp = value.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
        assert_eq!(
            value,
            serde_json::json!({
                "level": "WARN", "target": "app::orders", "message": "order\u{1b}[2J\nlost",
                "trace_id": "00000000000000000000000000000abc", "span_id": "0000000000000def",
                "file": "src/orders.rs", "line": 12,
                "fields": {"order.id": 7, "ratio": 1.0, "first": true, "name": "a\"b\n"},
            })
        );
    }

    #[test]
    fn the_default_format_is_text_on_a_terminal_only() {
        let colours = |is_terminal| Format::Text { colours: is_terminal };
        for is_terminal in [true, false] {
            assert_eq!(Format::new(LogFormat::Json, is_terminal), Format::Json);
            assert_eq!(Format::new(LogFormat::Text, is_terminal), colours(is_terminal));
        }
        assert_eq!(Format::new(LogFormat::Auto, true), colours(true));
        assert_eq!(Format::new(LogFormat::Auto, false), Format::Json);
    }

    fn strip_colours(line: &str) -> String {
        let mut plain = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain + rest
    }
}
