//! JSON spelled the way Python's `json.dumps` spells it: a space after `,` and `:`, and only ASCII. A message
//! that passes through Rust unchanged keeps its bytes, and both sides' traces look alike.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Serialises a value whose map keys are strings, as all of this crate's are.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = Vec::with_capacity(512);
    value
        .serialize(&mut Serializer::with_formatter(&mut text, PythonFormatter))
        .expect("maps have string keys and writing to memory does not fail");
    String::from_utf8(text).expect("the formatter writes ASCII only")
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

    use super::to_string;

    #[test]
    fn the_spelling_is_pythons() {
        assert_eq!(
            to_string(&json!({"b": [1, "créé 😀"], "a": {}, "n": null})),
            r#"{"b": [1, "cr\u00e9\u00e9 \ud83d\ude00"], "a": {}, "n": null}"#
        );
    }
}
