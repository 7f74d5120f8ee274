//! Text filter of searches. Protobuf stores strings verbatim, so a scan of the encoding rules out most entries, and
//! only possible matches are decoded.

use memchr::{memchr, memchr_iter, memchr2_iter};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::{Span, span::Event},
};

#[cfg(feature = "keep")]
use super::grams;
use super::ids::TraceId;

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

    /// Visits the grams of a text that contains this one.
    #[cfg(feature = "keep")]
    pub(crate) fn grams(&self, visit: impl FnMut(u32)) {
        grams::of_part(&self.needle, visit);
    }

    /// Visits the grams of texts that, joined by spaces, contain this one.
    #[cfg(feature = "keep")]
    pub(crate) fn grams_of_words(&self, mut visit: impl FnMut(u32)) {
        for word in self.needle.split(|byte| *byte == b' ') {
            grams::of_part(word, &mut visit);
        }
    }

    /// Whether the text consists of the digits of `id`.
    pub(crate) fn is_id(&self, id: TraceId) -> bool {
        *self.needle == *id.to_string().as_bytes()
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

    /// Whether the name, the status message, an attribute or an event of `span` contains the text.
    pub(crate) fn is_in_span(&self, span: &Span) -> bool {
        let status = span.status.as_ref().map_or("", |status| &status.message);
        let is_in_event =
            |event: &Event| self.is_in(event.name.as_bytes()) || self.is_in_attributes(&event.attributes);
        self.is_in(span.name.as_bytes())
            || self.is_in(status.as_bytes())
            || self.is_in_attributes(&span.attributes)
            || span.events.iter().any(is_in_event)
    }

    /// Whether the body, the event name, the severity text or an attribute of `record` contains the text.
    pub(crate) fn is_in_record(&self, record: &LogRecord) -> bool {
        record.body.as_ref().is_some_and(|body| self.is_in_value(body))
            || self.is_in(record.event_name.as_bytes())
            || self.is_in(record.severity_text.as_bytes())
            || self.is_in_attributes(&record.attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
