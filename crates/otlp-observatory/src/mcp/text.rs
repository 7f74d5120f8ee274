//! Formatting of untrusted values for a terminal. Characters that would move the cursor, change colours or
//! reorder text are escaped.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

/// Returns `text` on one line, with control characters escaped.
pub(in crate::mcp) fn escaped(text: &str) -> Cow<'_, str> {
    escape(text, |c, escaped| match c {
        '\n' => escaped.push_str("\\n"),
        '\r' => escaped.push_str("\\r"),
        '\t' => escaped.push_str("\\t"),
        c => escaped.extend(c.escape_unicode()),
    })
}

/// Returns equivalent JSON in which the control characters in strings are escaped.
///
/// Line breaks are kept, because JSON permits them only outside of strings.
pub(in crate::mcp) fn escaped_json(json: &str) -> Cow<'_, str> {
    escape(json, |c, escaped| match c {
        '\n' => escaped.push(c),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    })
}

fn escape(text: &str, replace: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) {
            replace(c, &mut escaped);
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal may act on `c`: control characters, line and paragraph separators, and invisible
/// characters that change the text direction or join their neighbours.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Formats a time of the observatory's JSON, nanoseconds since the Unix epoch, in UTC.
pub(in crate::mcp) fn timestamp(unix_nano: &str) -> String {
    let nanoseconds = unix_nano.parse().ok();
    match nanoseconds.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok()) {
        Some(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
        None => escaped(unix_nano).into_owned(),
    }
}

/// Formats a duration in a unit that suits its size.
pub(in crate::mcp) fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0}ns"),
        n if n < 1e6 => format!("{:.0}us", n / 1e3),
        n if n < 1e9 => format!("{:.1}ms", n / 1e6),
        n => format!("{:.2}s", n / 1e9),
    }
}

/// Formats a number with a noun, in the plural unless the number is 1.
pub(in crate::mcp) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Formats the value of an attribute on one line: text without quotes, any other value as JSON.
pub(in crate::mcp) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text).into_owned(),
        other => escaped(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain, Ünïcode 漢字 🙂", "plain, Ünïcode 漢字 🙂"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("two\r\nlines\tand", "two\\r\\nlines\\tand"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gnp.exe\u{2069}", "\\u{202e}gnp.exe\\u{2069}"),
            ("a\u{7f}\0\u{2028}", "a\\u{7f}\\u{0}\\u{2028}"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"body": "\u{9b}31m \u{202e} \u{e0001} \u{1b} 漢字"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&json);
        assert!(
            !escaped.contains(|c: char| c != '\n' && is_control(c)),
            "{escaped}"
        );
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

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
