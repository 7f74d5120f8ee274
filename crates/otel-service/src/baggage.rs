//! The propagator of W3C Baggage (<https://www.w3.org/TR/baggage/>).
//!
//! Unlike the propagator of the SDK, it combines the lines of `baggage`, and what it writes is read back unchanged:
//! values may contain `=`, `%` and `\`, and the properties of an entry cannot add entries.

use opentelemetry::Context;
use opentelemetry::baggage::{BaggageExt, KeyValueMetadata};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::query::percent_decode;

const BAGGAGE: &str = "baggage";

/// Maximum number of entries; [`opentelemetry::baggage::Baggage`] also limits their total length.
const MAX_ENTRIES: usize = 64;

/// Characters to encode. `=` may occur in a value, but not all implementations accept it.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b',')
    .add(b';')
    .add(b'=')
    .add(b'\\');

/// The propagator of `baggage`.
#[derive(Debug)]
pub(crate) struct BaggagePropagator {
    fields: [String; 1],
}

impl BaggagePropagator {
    pub(crate) fn new() -> Self {
        Self {
            fields: [BAGGAGE.to_owned()],
        }
    }
}

impl TextMapPropagator for BaggagePropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let mut header = String::new();
        // The API accepts only keys that need no encoding.
        for (key, (value, properties)) in cx.baggage() {
            if !header.is_empty() {
                header.push(',');
            }
            header.push_str(key.as_str());
            header.push('=');
            header.extend(utf8_percent_encode(value.as_str().trim(), ENCODED));
            let properties = properties.as_str().split(';').map(str::trim);
            for property in properties.filter(|property| is_property(property)) {
                header.push(';');
                header.push_str(property);
            }
        }
        if !header.is_empty() {
            injector.set(BAGGAGE, header);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let Some(lines) = extractor.get_all(BAGGAGE) else {
            return cx.clone();
        };
        let entries = lines.iter().flat_map(|line| line.split(','));
        cx.with_baggage(entries.filter_map(entry).take(MAX_ENTRIES))
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

/// Parses `key=value[;property]*`. Properties stay encoded.
fn entry(text: &str) -> Option<KeyValueMetadata> {
    let (pair, properties) = text.split_once(';').unwrap_or((text, ""));
    let (key, value) = pair.split_once('=')?;
    let value = percent_decode(value.trim()).into_owned();
    Some(KeyValueMetadata::new(
        key.trim().to_owned(),
        value,
        properties.trim(),
    ))
}

fn is_property(text: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') && !b"\",\\".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Returns the entries of the baggage in `header`, sorted, and the header that passes them on.
    fn passed_on(header: &str) -> (Vec<(String, String)>, String) {
        let propagator = BaggagePropagator::new();
        let carrier = HashMap::from([(BAGGAGE.to_owned(), header.to_owned())]);
        let cx = propagator.extract_with_context(&Context::new(), &carrier);
        let entries = cx.baggage().iter();
        let mut entries: Vec<_> = entries
            .map(|(key, (value, _))| (key.to_string(), value.to_string()))
            .collect();
        entries.sort();
        let mut written = HashMap::new();
        propagator.inject_context(&cx, &mut written);
        (entries, written.remove(BAGGAGE).unwrap_or_default())
    }

    #[test]
    fn an_entry_is_passed_on_unchanged() {
        for (header, value) in [
            ("tenant=blue", "blue"),
            ("tenant = blue ", "blue"),
            ("tenant=a%3Db%2Cc", "a=b,c"),
            ("tenant=a=b", "a=b"),
            ("tenant=%2541", "%41"),
            ("tenant=100%25", "100%"),
            ("tenant=a%5Cb", "a\\b"),
            ("tenant=%C3%BC", "ü"),
            ("tenant=%FF", "\u{fffd}"),
            ("tenant=", ""),
        ] {
            let expected = vec![("tenant".to_owned(), value.to_owned())];
            let (entries, written) = passed_on(header);
            assert_eq!(entries, expected, "{header}");
            assert_eq!(passed_on(&written).0, expected, "{header} {written}");
        }
        assert_eq!(passed_on("tenant=1; p = 2%2C ;q").1, "tenant=1;p = 2%2C;q");
    }

    #[test]
    fn a_property_cannot_add_an_entry() {
        for header in [
            "tenant=1;p=%2Cadmin%3Dtrue",
            "tenant=1;p=%0D%0Aadmin:true",
            "tenant=1;\"p\"",
        ] {
            let (_, written) = passed_on(header);
            let (entries, _) = passed_on(&written);
            assert_eq!(entries, [("tenant".to_owned(), "1".to_owned())], "{written}");
        }
    }

    #[test]
    fn malformed_entries_are_left_out() {
        let (entries, _) = passed_on("novalue,=1,a b=1, ,tenant=blue");
        assert_eq!(entries, [("tenant".to_owned(), "blue".to_owned())]);
        let many: Vec<String> = (0..80).map(|index| format!("k{index}=v")).collect();
        assert_eq!(passed_on(&many.join(",")).0.len(), 64);
        assert_eq!(passed_on(&format!("long={},a=1", "x".repeat(9_000))).0.len(), 1);
    }
}
