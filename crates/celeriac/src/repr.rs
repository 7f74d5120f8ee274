//! Python's `repr` of JSON values, for the headers `argsrepr` and `kwargsrepr` that Celery's tools show. The
//! text is for people only: workers never parse it, and it is truncated at the same length as in Celery.

use serde_json::{Map, Value};

use crate::json;

/// Celery's limit for the two headers, in characters.
const MAX_CHARS: usize = 1024;

/// Formats positional arguments as a tuple: `(1, 'created')`.
pub(crate) fn tuple(values: &[Value]) -> String {
    let mut text = String::from("(");
    separated(&mut text, values, write);
    if values.len() == 1 {
        text.push(',');
    }
    text.push(')');
    truncate(text)
}

/// Formats keyword arguments as a dictionary: `{'key': 1}`.
pub(crate) fn dict(map: &Map<String, Value>) -> String {
    let mut text = String::new();
    mapping(&mut text, map);
    truncate(text)
}

/// Formats a single value.
pub(crate) fn value(item: &Value) -> String {
    let mut text = String::new();
    write(&mut text, item);
    truncate(text)
}

fn truncate(text: String) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Writes items separated by commas, until the text is much longer than the limit.
fn separated<T>(text: &mut String, items: impl IntoIterator<Item = T>, write: impl Fn(&mut String, T)) {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            text.push_str(", ");
        }
        write(text, item);
        if text.len() > MAX_CHARS * 4 {
            return;
        }
    }
}

fn mapping(text: &mut String, map: &Map<String, Value>) {
    text.push('{');
    separated(text, map, |text, (key, item)| {
        string(text, key);
        text.push_str(": ");
        write(text, item);
    });
    text.push('}');
}

fn write(text: &mut String, item: &Value) {
    match item {
        Value::Null => text.push_str("None"),
        Value::Bool(true) => text.push_str("True"),
        Value::Bool(false) => text.push_str("False"),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(content) => string(text, content),
        Value::Array(values) => {
            text.push('[');
            separated(text, values, write);
            text.push(']');
        }
        Value::Object(map) => match json::exact_number(item) {
            Some("NaN") => text.push_str("nan"),
            Some("Infinity") => text.push_str("inf"),
            Some("-Infinity") => text.push_str("-inf"),
            Some(integer) => text.push_str(integer),
            None => mapping(text, map),
        },
    }
}

fn string(text: &mut String, content: &str) {
    let quote = if content.contains('\'') && !content.contains('"') {
        '"'
    } else {
        '\''
    };
    text.push(quote);
    for character in content.chars().take(MAX_CHARS) {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c == quote => {
                text.push('\\');
                text.push(c);
            }
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push(quote);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_formatted_as_by_python() {
        let values = [
            (json!([1, "created"]), "(1, 'created')"),
            (json!([1]), "(1,)"),
            (json!([]), "()"),
            (json!([null, true, false, 1.5]), "(None, True, False, 1.5)"),
            (
                json!(["it's", "say \"it's\"", "a\nb\\"]),
                r#"("it's", 'say "it\'s"', 'a\nb\\')"#,
            ),
            (
                json!([{json::TAG: "NaN"}, {json::TAG: "1180591620717411303424"}]),
                "(nan, 1180591620717411303424)",
            ),
            (json!([[1, {"k": "v"}], "é\u{7f}"]), r"([1, {'k': 'v'}], 'é\x7f')"),
        ];
        for (value, expected) in values {
            assert_eq!(tuple(value.as_array().unwrap()), expected);
        }
        assert_eq!(dict(&Map::new()), "{}");
    }

    #[test]
    fn long_arguments_are_truncated() {
        let text = tuple(&[json!("x".repeat(100_000))]);
        assert_eq!(text.chars().count(), MAX_CHARS + 3);
        assert!(text.ends_with("..."));
    }
}
