//! Formatting of untrusted values for a terminal.

use jiff::Timestamp;
use serde_json::Value;
use telemetry::escaped;

/// Formats a time of the observatory's JSON, nanoseconds since the Unix epoch, in UTC.
pub(super) fn timestamp(unix_nano: &str) -> String {
    let nanoseconds = unix_nano.parse().ok();
    match nanoseconds.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok()) {
        Some(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
        None => escaped(unix_nano).into_owned(),
    }
}

/// Formats a duration in a unit that suits its size.
pub(super) fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0}ns"),
        n if n < 1e6 => format!("{:.0}us", n / 1e3),
        n if n < 1e9 => format!("{:.1}ms", n / 1e6),
        n => format!("{:.2}s", n / 1e9),
    }
}

/// Formats a number with a noun, in the plural unless the number is 1.
pub(super) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Formats the value of an attribute on one line: text without quotes, any other value as JSON.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text).into_owned(),
        other => escaped(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_durations_are_formatted() {
        assert_eq!(timestamp("1795342907097930000"), "2026-11-22 10:21:47.097Z");
        assert_eq!(timestamp("\u{1b}soon"), "\\u{1b}soon");
        for (nanoseconds, expected) in [
            (0.0, "0ns"),
            (999.0, "999ns"),
            (1_500.0, "2us"),
            (5_340_000.0, "5.3ms"),
            (1_500_000_000.0, "1.50s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }
}
