//! Text and attribute filters of searches. Protobuf stores strings verbatim, so a scan of the encoding rules
//! out most entries, and only possible matches are decoded.

use memchr::{memchr, memchr_iter, memchr2_iter};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use super::aliases::Key;

/// Characters in order of descending frequency. A search scans for the rarest character of its text.
const BY_FREQUENCY: &[u8] = b"etaoinsrhldcu_mfpgwyb.v/-kxjqz";

/// Substring filter that ignores the case of ASCII letters.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    needle: Box<[u8]>,
    /// Index of the rarest byte.
    rarest: usize,
}

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        let needle = text.as_bytes().to_ascii_lowercase();
        let rank = |byte| memchr(byte, BY_FREQUENCY).unwrap_or(usize::MAX);
        let rarest = (0..needle.len()).max_by_key(|&index| rank(needle[index]));
        Self {
            needle: needle.into(),
            rarest: rarest.unwrap_or(0),
        }
    }

    /// Whether `bytes` contains the text.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let Some(&rarest) = self.needle.get(self.rarest) else {
            return true;
        };
        let matches_at = |index: usize| {
            let start = index.checked_sub(self.rarest);
            let found = start.and_then(|start| bytes.get(start..start.checked_add(self.needle.len())?));
            found.is_some_and(|found| found.eq_ignore_ascii_case(&self.needle))
        };
        if rarest.is_ascii_lowercase() {
            memchr2_iter(rarest, rarest.to_ascii_uppercase(), bytes).any(matches_at)
        } else {
            memchr_iter(rarest, bytes).any(matches_at)
        }
    }

    /// Whether a key or a value of `attributes` contains the text, at any depth.
    pub(crate) fn is_in_attributes(&self, attributes: &[KeyValue]) -> bool {
        attributes.iter().any(|attribute| {
            let value = attribute.value.as_ref();
            self.is_in(attribute.key.as_bytes()) || value.is_some_and(|value| self.is_in_value(value))
        })
    }

    /// Whether `value` contains the text, at any depth.
    pub(crate) fn is_in_value(&self, value: &AnyValue) -> bool {
        match &value.value {
            Some(Value::StringValue(text)) => self.is_in(text.as_bytes()),
            Some(Value::BytesValue(bytes)) => self.is_in(bytes),
            Some(Value::ArrayValue(array)) => array.values.iter().any(|value| self.is_in_value(value)),
            Some(Value::KvlistValue(list)) => self.is_in_attributes(&list.values),
            _ => false,
        }
    }
}

/// Filter by an attribute, optionally with a given value.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    key: Key,
    value: Option<String>,
}

impl Attribute {
    /// Parses `key=value` or `key`.
    pub(crate) fn new(text: &str) -> Self {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        Self {
            key: Key::new(key),
            value,
        }
    }

    /// Whether an encoded entry contains the key and may therefore have the attribute.
    pub(crate) fn may_be_in(&self, encoded: &[u8]) -> bool {
        self.key.may_be_in(encoded)
    }

    /// Whether `attributes` contains the attribute.
    pub(crate) fn is_in(&self, attributes: &[KeyValue]) -> bool {
        let mut values = self.key.values(attributes);
        values.any(|value| {
            let wanted = self.value.as_deref();
            wanted.is_none_or(|wanted| has_text_form(&value, wanted))
        })
    }
}

/// Whether `wanted` is the text form of `value` or, for an array, of one of its elements.
fn has_text_form(value: &AnyValue, wanted: &str) -> bool {
    match &value.value {
        Some(Value::StringValue(text)) => text == wanted,
        Some(Value::BoolValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::IntValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::DoubleValue(value)) => wanted.parse() == Ok(*value),
        Some(Value::ArrayValue(array)) => array.values.iter().any(|value| has_text_form(value, wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::ArrayValue;

    use super::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..Default::default()
        }
    }

    #[test]
    fn text_is_found_anywhere_ignoring_case() {
        for (needle, haystack, found) in [
            ("zebra", "a ZEBRA", true),
            ("Zebra", "zebr", false),
            ("SELECT", "select 1", true),
            ("a", "A", true),
            ("é", "caf\u{e9}", true),
            ("404", "a404", true),
            ("aab", "aaab", true),
            ("", "", true),
            ("x", "", false),
        ] {
            assert_eq!(
                Text::new(needle).is_in(haystack.as_bytes()),
                found,
                "{needle} in {haystack}"
            );
        }
    }

    #[test]
    fn attributes_are_compared_by_their_text_form() {
        let array = ArrayValue {
            values: vec![attribute("", Value::IntValue(7)).value.expect("a value")],
        };
        let attributes = [
            attribute("http.response.status_code", Value::IntValue(500)),
            attribute("ok", Value::BoolValue(true)),
            attribute("ratio", Value::DoubleValue(0.5)),
            attribute("query", Value::StringValue("a=b".to_owned())),
            attribute("many", Value::ArrayValue(array)),
        ];
        for (filter, matches) in [
            ("http.response.status_code=500", true),
            ("http.response.status_code=50", false),
            ("http.response.status_code", true),
            ("http.response", false),
            ("ok=true", true),
            ("ok=false", false),
            ("ratio=0.50", true),
            ("query=a=b", true),
            ("many=7", true),
            ("many=8", false),
        ] {
            assert_eq!(Attribute::new(filter).is_in(&attributes), matches, "{filter}");
        }
    }
}
