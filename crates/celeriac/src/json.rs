//! JSON as Python's `json` module reads and writes it. Texts are formatted as by `json.dumps`, with a space
//! after `,` and `:`, and only ASCII: a message that is decoded and encoded again keeps its bytes.
//!
//! Python's integers are unbounded, and it writes `NaN`, `Infinity` and `-Infinity`. [`Value`] can hold none
//! of them, and `serde_json` would read a large integer as a float. Every text of a sender therefore passes
//! through [`exact`], which replaces such a number with an object of one member, [`TAG`]; [`to_string`] writes
//! the number back. [`ExactNumber`](crate::ExactNumber) reads it.

use std::{borrow::Cow, io};

use serde::Serialize;
use serde_json::{
    Value,
    ser::{Formatter, Serializer},
};

/// Key of the object that stands for a number that [`Value`] cannot hold.
pub(crate) const TAG: &str = "__celeriac_number__";

/// Serialises a value. All map keys in this crate are strings, as JSON requires.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = Vec::with_capacity(512);
    value
        .serialize(&mut Serializer::with_formatter(&mut text, PythonFormatter))
        .expect("maps have string keys and writing to memory does not fail");
    let text = String::from_utf8(text).expect("the formatter writes ASCII only");
    if text.contains(TAG) { untagged(&text) } else { text }
}

/// Returns the text of the number that this value stands for, if [`Value`] cannot hold the number itself.
pub(crate) fn exact_number(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(TAG)?.as_str().filter(|number| is_exact(number))
}

/// Returns whether this is the text of a number that [`Value`] cannot hold.
pub(crate) fn is_exact(number: &str) -> bool {
    NON_NUMBERS.contains(&number) || is_beyond_64_bits(number.as_bytes())
}

/// Number of digits of 2^63, the smallest integer that may not fit.
const LONG: usize = 19;

const NON_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Returns a JSON text in which every number that [`Value`] cannot hold is tagged.
pub(crate) fn exact(text: &[u8]) -> Cow<'_, [u8]> {
    if !may_be_inexact(text) {
        return Cow::Borrowed(text);
    }
    let mut tagged: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(first) = text.get(at) {
        let number = match first {
            b'"' => {
                at = text.len() - after_string(&text[at + 1..]).len();
                continue;
            }
            b'-' | b'0'..=b'9' | b'N' | b'I' => number(&text[at..]),
            _ => {
                at += 1;
                continue;
            }
        };
        let Ok(number) = number else {
            at += number.unwrap_or_else(|length| length);
            continue;
        };
        tagged.extend_from_slice(&text[copied..at]);
        tagged.extend_from_slice(format!("{{\"{TAG}\": \"").as_bytes());
        tagged.extend_from_slice(&text[at..at + number]);
        tagged.extend_from_slice(b"\"}");
        at += number;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    tagged.extend_from_slice(&text[copied..]);
    Cow::Owned(tagged)
}

/// Returns whether the text may contain a number that [`Value`] cannot hold. Reads only part of the text; most
/// texts contain no such number.
fn may_be_inexact(text: &[u8]) -> bool {
    let is_word = |at: usize| text[at..].starts_with(b"NaN") || text[at..].starts_with(b"Infinity");
    memchr::memchr2_iter(b'N', b'I', text).any(is_word) || has_long_integer(text)
}

/// Returns whether the text has [`LONG`] digits in a row. One of them must be at a multiple of `LONG`.
fn has_long_integer(text: &[u8]) -> bool {
    (0..text.len()).step_by(LONG).any(|at| {
        let (before, after) = text.split_at(at);
        let after = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let before = before.iter().rev().take_while(|byte| byte.is_ascii_digit());
        after > 0 && before.count() + after >= LONG
    })
}

/// Returns the length of the number at the start of the text: as `Ok` if [`Value`] cannot hold it.
fn number(text: &[u8]) -> Result<usize, usize> {
    if let Some(word) = NON_NUMBERS.iter().find(|word| text.starts_with(word.as_bytes())) {
        return Ok(word.len());
    }
    let end = text.iter().position(|byte| !is_number_byte(*byte));
    let length = end.unwrap_or(text.len());
    if is_beyond_64_bits(&text[..length]) {
        Ok(length)
    } else {
        Err(length.max(1))
    }
}

/// Returns a text written by [`to_string`] with the tagged numbers written as numbers.
fn untagged(text: &str) -> String {
    let start = format!("{{\"{TAG}\": \"");
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&start) {
        let (before, after) = (&rest[..at], &rest[at + start.len()..]);
        clean.push_str(before);
        match after.split_once("\"}") {
            Some((number, after)) if is_exact(number) => {
                clean.push_str(number);
                rest = after;
            }
            _ => {
                clean.push_str(&start);
                rest = after;
            }
        }
    }
    clean.push_str(rest);
    clean
}

/// Returns the text after a string whose opening quote has been read.
fn after_string(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        if rest[end] == b'"' {
            return &rest[end + 1..];
        }
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    &[]
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Returns whether this is an integer that fits neither `i64` nor `u64`.
fn is_beyond_64_bits(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    digits.len() >= LONG
        && digits.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(number)
            .is_ok_and(|digits| digits.parse::<i64>().is_err() && digits.parse::<u64>().is_err())
}

struct PythonFormatter;

fn separate<W: io::Write + ?Sized>(writer: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}

impl Formatter for PythonFormatter {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| !c.is_ascii()) {
            writer.write_all(&rest.as_bytes()[..start])?;
            let mut characters = rest[start..].chars();
            let mut units = [0; 2];
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_formatted_as_by_python() {
        assert_eq!(
            to_string(&json!({"b": [1, "créé 😀"], "a": {}, "n": null})),
            r#"{"b": [1, "cr\u00e9\u00e9 \ud83d\ude00"], "a": {}, "n": null}"#
        );
    }

    #[test]
    fn long_integers_are_found_at_every_position() {
        for position in 0..2 * LONG {
            let text = format!("{}99999999999999999999", " ".repeat(position));
            assert!(matches!(exact(text.as_bytes()), Cow::Owned(_)), "{position}");
            assert!(!has_long_integer(&text.as_bytes()[..position + LONG - 1]));
        }
    }

    #[test]
    fn numbers_that_json_or_rust_cannot_hold_pass_unchanged() {
        for unchanged in [
            "[]",
            "0",
            "[18446744073709551615, -9223372036854775808]",
            "[1e300, 18446744073709551616.0, 1E+30, -0.000000000000000000000000000001]",
            r#"{"18446744073709551616": "\"18446744073709551616\\", "NaN": "-Infinity\\"}"#,
            "[true, false, null]",
            r#""unfinished \"#,
            "-",
        ] {
            let text = exact(unchanged.as_bytes());
            assert!(matches!(text, Cow::Borrowed(_)), "{unchanged}");
        }
        for changed in [
            "18446744073709551616",
            "[-9223372036854775809]",
            r#"{"a": "\\", "b": [1, {"c": 100000000000000000000}]}"#,
            "[NaN, Infinity, -Infinity, -1, 1180591620717411303424]",
        ] {
            let value: Value = serde_json::from_slice(&exact(changed.as_bytes())).unwrap();
            assert_eq!(to_string(&value), changed);
        }
    }

    #[test]
    fn objects_that_only_look_like_tagged_numbers_stay() {
        for text in ["1", "", "1.5", "NaN and more", "123"] {
            let value = json!({TAG: text});
            assert_eq!(exact_number(&value), None);
            let written: Value = serde_json::from_str(&to_string(&value)).unwrap();
            assert_eq!(written, value);
        }
    }
}
