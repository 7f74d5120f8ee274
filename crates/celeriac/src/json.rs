//! JSON formatted as by Python's `json.dumps`, with a space after `,` and `:`, and only ASCII. A message that
//! is decoded and encoded again keeps its bytes.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Serialises a value. All map keys in this crate are strings, as JSON requires.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = Vec::with_capacity(512);
    value
        .serialize(&mut Serializer::with_formatter(&mut text, PythonFormatter))
        .expect("maps have string keys and writing to memory does not fail");
    String::from_utf8(text).expect("the formatter writes ASCII only")
}

const NON_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Replaces `NaN`, `Infinity` and `-Infinity`, which Python writes and JSON does not allow, with `null`.
pub(crate) fn without_non_numbers(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(word) = NON_NUMBERS.iter().find(|word| rest.starts_with(word)) {
            clean.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        let left = if first == b'"' { after_string(after) } else { after };
        clean.extend_from_slice(&rest[..rest.len() - left.len()]);
        rest = left;
    }
    clean
}

/// Returns whether a valid JSON text contains an integer that fits neither `i64` nor `u64` and is therefore
/// read as a float.
pub(crate) fn has_integer_beyond_64_bits(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'"' => rest = after_string(after),
            b'-' | b'0'..=b'9' => {
                let end = rest.iter().position(|byte| !is_number_byte(*byte));
                let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
                if is_beyond_64_bits(number) {
                    return true;
                }
                rest = after;
            }
            _ => rest = after,
        }
    }
    false
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

fn is_beyond_64_bits(number: &[u8]) -> bool {
    let is_integer = !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    // 2^63 has 19 digits.
    is_integer
        && number.len() >= 19
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

    use super::{has_integer_beyond_64_bits, to_string, without_non_numbers};

    #[test]
    fn json_is_formatted_as_by_python() {
        assert_eq!(
            to_string(&json!({"b": [1, "créé 😀"], "a": {}, "n": null})),
            r#"{"b": [1, "cr\u00e9\u00e9 \ud83d\ude00"], "a": {}, "n": null}"#
        );
    }

    #[test]
    fn integers_beyond_64_bits_are_found() {
        for unchanged in [
            "[]",
            "0",
            "[18446744073709551615, -9223372036854775808]",
            "[1e300, 18446744073709551616.0, 1E+30, -0.000000000000000000000000000001]",
            r#"{"18446744073709551616": "\"18446744073709551616\\", "a": ["36893488147419103232\\\""]}"#,
        ] {
            assert!(!has_integer_beyond_64_bits(unchanged.as_bytes()), "{unchanged}");
        }
        for changed in [
            "18446744073709551616",
            "[-9223372036854775809]",
            r#"{"a": "\\", "b": [1, {"c": 100000000000000000000}]}"#,
        ] {
            assert!(has_integer_beyond_64_bits(changed.as_bytes()), "{changed}");
        }
    }

    #[test]
    fn nan_and_infinity_become_null() {
        let python = r#"{"a": [NaN, Infinity, -Infinity, -1], "NaN \" Infinity": "-Infinity\\", "b": NaN}"#;
        assert_eq!(
            String::from_utf8(without_non_numbers(python.as_bytes())).unwrap(),
            r#"{"a": [null, null, null, -1], "NaN \" Infinity": "-Infinity\\", "b": null}"#
        );
        assert_eq!(without_non_numbers(b"\"unfinished \\"), b"\"unfinished \\");
    }
}
