//! Formats an event as a line of standard output.

use std::fmt::Write;
use std::io::IsTerminal;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::SpanContext;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::fields::Fields;
use super::location::CodeLocation;

/// Format of standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Text with colours.
    Terminal,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Returns [`Format::Terminal`] if standard output is a terminal, [`Format::Json`] otherwise.
    pub(crate) fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Terminal
        } else {
            Self::Json
        }
    }

    /// Formats an event, including the line feed.
    pub(super) fn line(
        self,
        metadata: &Metadata<'_>,
        location: &CodeLocation,
        fields: &Fields,
        span: Option<&SpanContext>,
    ) -> String {
        let mut line = String::with_capacity(256);
        match self {
            Self::Terminal => terminal(&mut line, metadata, fields, span),
            Self::Json => json(&mut line, metadata, location, fields, span),
        }
        line.push('\n');
        line
    }
}

fn json(
    line: &mut String,
    metadata: &Metadata<'_>,
    location: &CodeLocation,
    fields: &Fields,
    span: Option<&SpanContext>,
) {
    line.push_str("{\"timestamp\":\"");
    timestamp(line);
    put(line, format_args!("\",\"level\":\"{}\"", metadata.level()));
    line.push_str(",\"target\":");
    quoted(line, metadata.target());
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
            match value {
                AnyValue::Int(number) => put(line, format_args!("{number}")),
                AnyValue::Double(number) if number.is_finite() => {
                    put(line, format_args!("{number:?}"));
                }
                AnyValue::Boolean(truth) => put(line, format_args!("{truth}")),
                AnyValue::String(text) => quoted(line, text.as_str()),
                other => quoted(line, &format!("{other:?}")),
            }
        }
        line.push('}');
    }
    line.push('}');
}

fn terminal(line: &mut String, metadata: &Metadata<'_>, fields: &Fields, span: Option<&SpanContext>) {
    let colour = match *metadata.level() {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    line.push_str("\x1b[2m");
    timestamp(line);
    put(
        line,
        format_args!(
            "\x1b[0m \x1b[{colour}m{:>5}\x1b[0m \x1b[2m{}:\x1b[0m ",
            metadata.level().as_str(),
            metadata.target()
        ),
    );
    plain(line, fields.message.as_deref().unwrap_or_default());
    for (name, value) in &fields.others {
        put(line, format_args!(" \x1b[3m{name}\x1b[0m="));
        match value {
            AnyValue::Int(number) => put(line, format_args!("{number}")),
            AnyValue::Double(number) => put(line, format_args!("{number}")),
            AnyValue::Boolean(truth) => put(line, format_args!("{truth}")),
            AnyValue::String(text) => plain(line, text.as_str()),
            other => plain(line, &format!("{other:?}")),
        }
    }
    if let Some(span) = span {
        put(line, format_args!(" \x1b[2mtrace_id={}\x1b[0m", span.trace_id()));
    }
}

/// Appends text and escapes control characters, which could move the cursor or end the line.
fn plain(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
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
    use tracing::Callsite as _;

    use super::*;

    struct Site;

    static SITE: Site = Site;
    static METADATA: Metadata<'static> = tracing::metadata! {
        name: "event", target: "app::orders", level: Level::WARN, fields: &["message"], callsite: &SITE,
        kind: tracing::metadata::Kind::EVENT
    };

    impl tracing::Callsite for Site {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &METADATA
        }
    }

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
        format.line(SITE.metadata(), &location, &fields, Some(&span))
    }

    #[test]
    fn a_terminal_line_ends_with_the_trace_id_and_escapes_control_characters() {
        let line = line(Format::Terminal);
        let plain = strip_colours(&line);
        let (_, after_timestamp) = plain.split_once(' ').unwrap();
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
