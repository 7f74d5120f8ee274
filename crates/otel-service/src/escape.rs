//! Escaping of untrusted text for a terminal. Characters that would move the cursor, change colours or reorder text
//! are escaped.

use std::borrow::Cow;

/// Returns `text` on one line, with control characters escaped.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
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
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
}
