//! Structured values from `Debug` output. `tracing` passes a list or a map only as something that can be formatted;
//! the output of the standard collections is read back.

use std::collections::HashMap;
use std::fmt::Debug;

use opentelemetry::Key;
use opentelemetry::logs::AnyValue;

/// Maximum depth of nested collections; deeper ones are text.
const MAX_DEPTH: usize = 16;

/// Returns the value of a field that is recorded with `?` or `%`: a list, a map, or text.
#[must_use]
pub fn field_value(value: &dyn Debug) -> AnyValue {
    let text = format!("{value:?}");
    structure(&text, value).unwrap_or_else(|| text.into())
}

/// Returns the list or map that `value` formats as `text`.
pub(super) fn structure(text: &str, value: &dyn Debug) -> Option<AnyValue> {
    if !text.starts_with(['[', '{']) {
        return None;
    }
    // Collections are formatted in several lines on demand; text that merely looks like one is not.
    let is_collection = matches!(text, "[]" | "{}") || format!("{value:#?}") != text;
    if !is_collection {
        return None;
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(MAX_DEPTH)?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, text: &str) -> bool {
        let after = self.rest.strip_prefix(text);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<AnyValue> {
        let depth = depth.checked_sub(1)?;
        if self.skip("[") {
            return self.list("]", Vec::new(), depth);
        }
        if self.skip("{") {
            return self.map_or_set(depth);
        }
        let text = self.item()?;
        if let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            return unescaped(quoted).map(AnyValue::from);
        }
        Some(match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => text.to_owned().into(),
            },
        })
    }

    /// Reads the items up to `end`, behind `items`.
    fn list(&mut self, end: &str, mut items: Vec<AnyValue>, depth: usize) -> Option<AnyValue> {
        while !self.skip(end) {
            if !items.is_empty() && !self.skip(", ") {
                return None;
            }
            items.push(self.value(depth)?);
        }
        Some(AnyValue::ListAny(Box::new(items)))
    }

    fn map_or_set(&mut self, depth: usize) -> Option<AnyValue> {
        let mut entries = HashMap::new();
        while !self.skip("}") {
            if !entries.is_empty() && !self.skip(", ") {
                return None;
            }
            let key = self.value(depth)?;
            if !self.skip(": ") {
                return if entries.is_empty() {
                    self.list("}", vec![key], depth)
                } else {
                    None
                };
            }
            let key = match key {
                AnyValue::String(text) => text.as_str().to_owned(),
                AnyValue::Int(number) => number.to_string(),
                AnyValue::Boolean(truth) => truth.to_string(),
                _ => return None,
            };
            entries.insert(Key::from(key), self.value(depth)?);
        }
        Some(AnyValue::Map(Box::new(entries)))
    }

    /// Reads anything but a collection, such as `"a"`, `1` or `Some(Point { x: 1 })`.
    fn item(&mut self) -> Option<&'a str> {
        let (mut depth, mut quote, mut escaped) = (0_usize, false, false);
        let rest = self.rest;
        let ends = |(_, c): &(usize, char)| match *c {
            _ if escaped => {
                escaped = false;
                false
            }
            '\\' if quote => {
                escaped = true;
                false
            }
            '"' => {
                quote = !quote;
                false
            }
            _ if quote => false,
            ',' | ':' | ']' | '}' | ')' if depth == 0 => true,
            '(' | '[' | '{' => {
                depth += 1;
                false
            }
            ')' | ']' | '}' => {
                depth -= 1;
                false
            }
            _ => false,
        };
        let (end, _) = rest.char_indices().find(ends)?;
        self.rest = &rest[end..];
        (end > 0).then(|| &rest[..end])
    }
}

/// Decodes the escapes of a string literal; `None` if there are quotes within, so that it is no single literal.
fn unescaped(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        decoded.push(match c {
            '"' => return None,
            '\\' => match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                'u' => {
                    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)?
                }
                other => other,
            },
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn list<T: Into<AnyValue>>(items: impl IntoIterator<Item = T>) -> AnyValue {
        AnyValue::ListAny(Box::new(items.into_iter().map(Into::into).collect()))
    }

    #[test]
    fn collections_of_the_standard_library_keep_their_structure() {
        assert_eq!(
            field_value(&["celery", "a\"b,\n\u{1}"]),
            list(["celery", "a\"b,\n\u{1}"])
        );
        assert_eq!(field_value(&vec![1, -2]), list([1, -2]));
        assert_eq!(field_value(&[1.5]), list([1.5]));
        assert_eq!(field_value(&Vec::<u8>::new()), list::<i64>([]));
        assert_eq!(field_value(&BTreeSet::from([true])), list([true]));
        assert_eq!(field_value(&[Some(1), None]), list(["Some(1)", "None"]));
        assert_eq!(
            field_value(&[vec![1], vec![]]),
            list([list([1]), list::<i64>([])])
        );
        let map = BTreeMap::from([("a", vec![1]), ("b", vec![])]);
        let expected = [("a", list([1])), ("b", list::<i64>([]))];
        let expected = expected.map(|(key, value)| (Key::from(key), value));
        assert_eq!(
            field_value(&map),
            AnyValue::Map(Box::new(HashMap::from(expected)))
        );
    }

    #[test]
    fn other_values_are_text() {
        #[derive(Debug)]
        struct Point {
            #[expect(dead_code, reason = "formatted")]
            at: [i64; 2],
        }
        assert_eq!(field_value(&Point { at: [1, 2] }), "Point { at: [1, 2] }".into());
        let user_text = "[1, 2]";
        assert_eq!(field_value(&format_args!("{user_text}")), "[1, 2]".into());
    }

    #[test]
    fn nesting_is_limited() {
        #[derive(Clone)]
        struct Nested(usize);

        impl Debug for Nested {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let inner = (self.0 > 0).then(|| Self(self.0 - 1));
                f.debug_list().entries(inner).finish()
            }
        }

        assert!(matches!(field_value(&Nested(10)), AnyValue::ListAny(_)));
        assert!(matches!(field_value(&Nested(50)), AnyValue::String(_)));
    }
}
