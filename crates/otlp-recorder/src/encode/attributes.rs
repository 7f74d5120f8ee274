//! Encoded attributes, written when they are set. The last value of a key replaces earlier ones.

use std::ops::Range;
use std::sync::OnceLock;

use opentelemetry::{Array, KeyValue, Value};

use super::fields::{any_value, key_value, list};
use super::wire::{Writer, content_at};
use crate::text::TextRules;

/// Attributes of a span, event or link that is being recorded.
#[derive(Debug)]
pub struct Attributes {
    /// Field number of the attributes in their parent message.
    field: u32,
    pub(super) text_rules: TextRules,
    limit: u32,
    encoded: Encoded,
}

/// Encoded attributes.
#[derive(Clone, Debug, Default)]
struct Encoded {
    writer: Writer,
    count: u32,
    dropped: u32,
    keys: KeyFilter,
}

/// Attributes shared by many spans, encoded when the first of these spans starts. All spans must belong to
/// the same [`Recorder`](crate::Recorder).
#[derive(Debug, Default)]
pub struct PrewrittenAttributes(OnceLock<Encoded>);

impl PrewrittenAttributes {
    /// Creates shared attributes that are not written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Starts the attributes of a span with the shared ones.
    ///
    /// `describe` writes them. It is called for the first span only and must write the same attributes for
    /// every span.
    pub fn write(&self, into: &mut Attributes, describe: impl FnOnce(&mut Attributes)) {
        if into.encoded.count > 0 {
            return describe(into);
        }
        let encoded = self.0.get_or_init(|| {
            let mut first = Attributes::new(into.field, into.text_rules, into.limit);
            describe(&mut first);
            first.encoded
        });
        into.encoded.writer.append(encoded.writer.bytes());
        into.encoded.count = encoded.count;
        into.encoded.dropped = encoded.dropped;
        into.encoded.keys = encoded.keys;
    }
}

impl Attributes {
    pub(crate) fn new(field: u32, text_rules: TextRules, limit: u32) -> Self {
        Self {
            field,
            text_rules,
            limit,
            encoded: Encoded::default(),
        }
    }

    /// Sets a string constant, which is not redacted.
    pub fn literal(&mut self, key: &str, text: &'static str) {
        if self.admits(key) {
            let text = self.text_rules.limited(text);
            self.encoded.writer.string_attribute(self.field, key, text);
        }
    }

    /// Sets a string.
    pub fn text(&mut self, key: &str, text: &str) {
        if self.admits(key) {
            let redacted = self.text_rules.redacted(text);
            let text = self.text_rules.limited(&redacted);
            self.encoded.writer.string_attribute(self.field, key, text);
        }
    }

    /// Sets an integer.
    pub fn number(&mut self, key: &str, number: i64) {
        if self.admits(key) {
            self.encoded.writer.int_attribute(self.field, key, number);
        }
    }

    /// Sets an attribute of any type.
    pub fn set(&mut self, attribute: &KeyValue) {
        let key = attribute.key.as_str();
        match &attribute.value {
            Value::String(text) => self.text(key, text.as_str()),
            Value::I64(number) => self.number(key, *number),
            other => {
                if self.admits(key) {
                    let rules = self.text_rules;
                    self.encoded.writer.message(self.field, |writer| {
                        writer.string(key_value::KEY, key);
                        writer.message(key_value::VALUE, |writer| write_value(rules, writer, other));
                    });
                }
            }
        }
    }

    /// Clears the content and keeps at most `kept` bytes of memory.
    pub(super) fn clear(&mut self, kept: usize) {
        self.encoded.writer.clear(kept);
        self.encoded.count = 0;
        self.encoded.dropped = 0;
        self.encoded.keys = KeyFilter::default();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.encoded.writer.bytes()
    }

    /// Returns the writer for the fields after the attributes. No attribute may be set afterwards.
    pub(super) fn following_fields(&mut self) -> &mut Writer {
        &mut self.encoded.writer
    }

    /// Adds to the number of dropped attributes.
    pub(super) fn add_dropped(&mut self, count: u32) {
        self.encoded.dropped += count;
    }

    /// Returns the number of attributes beyond the limit.
    pub(super) fn dropped(&self) -> u32 {
        self.encoded.dropped
    }

    /// Removes the earlier value of `key` and returns whether a new one may be written, which the limit
    /// decides.
    #[inline]
    fn admits(&mut self, key: &str) -> bool {
        let encoded = &mut self.encoded;
        if !encoded.keys.insert(key) {
            encoded.remove(self.field, key);
        }
        if encoded.count >= self.limit {
            encoded.dropped += 1;
            return false;
        }
        encoded.count += 1;
        true
    }
}

impl Encoded {
    #[cold]
    fn remove(&mut self, field: u32, key: &str) {
        if let Some(attribute) = find(self.writer.bytes(), field, key) {
            self.writer.remove(attribute);
            self.count -= 1;
        }
    }
}

/// A set of key hashes with 128 values. It saves searching for an earlier value of a new key, unless the
/// hashes collide.
#[derive(Clone, Copy, Debug, Default)]
struct KeyFilter(u128);

impl KeyFilter {
    /// Adds `key`; returns false if the key may be present already.
    fn insert(&mut self, key: &str) -> bool {
        let bit = 1 << hash(key);
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}

/// Returns a hash below 128 of the length and of the first and last eight bytes, which distinguish keys in
/// practice.
fn hash(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => {
            let short = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            (short, short)
        }
    };
    let word = (first ^ last.rotate_left(32)).wrapping_add(bytes.len() as u64);
    // The multiplier of FxHash; the highest bits are the best mixed.
    (word.wrapping_mul(0x517c_c1b7_2722_0a95) >> 57) as u32
}

/// Returns the position of the attribute `key`.
fn find(attributes: &[u8], field: u32, key: &str) -> Option<Range<usize>> {
    let mut start = 0;
    while start < attributes.len() {
        let attribute = content_at(attributes, start, field)?;
        // The field of an empty key may be absent.
        let found = content_at(&attributes[..attribute.end], attribute.start, key_value::KEY);
        if attributes[found.unwrap_or_default()] == *key.as_bytes() {
            return Some(start..attribute.end);
        }
        start = attribute.end;
    }
    None
}

/// Writes the content of an `AnyValue`.
fn write_value(rules: TextRules, writer: &mut Writer, value: &Value) {
    match value {
        Value::String(text) => write_text(rules, writer, text.as_str()),
        Value::Bool(truth) => writer.varint_always(any_value::BOOL, u64::from(*truth)),
        Value::I64(number) => writer.varint_always(any_value::INT, number.cast_unsigned()),
        Value::F64(number) => writer.double_always(any_value::DOUBLE, *number),
        Value::Array(array) => writer.message(any_value::ARRAY, |writer| write_array(rules, writer, array)),
        // `Value` is non-exhaustive.
        other => write_text(rules, writer, &other.as_str()),
    }
}

/// Writes the content of an `ArrayValue`.
fn write_array(rules: TextRules, writer: &mut Writer, array: &Array) {
    match array {
        Array::String(texts) => {
            for text in texts {
                writer.message(list::VALUES, |writer| write_text(rules, writer, text.as_str()));
            }
        }
        Array::Bool(truths) => {
            for truth in truths {
                writer.message(list::VALUES, |writer| {
                    writer.varint_always(any_value::BOOL, u64::from(*truth));
                });
            }
        }
        Array::I64(numbers) => {
            for number in numbers {
                writer.message(list::VALUES, |writer| {
                    writer.varint_always(any_value::INT, number.cast_unsigned());
                });
            }
        }
        Array::F64(numbers) => {
            for number in numbers {
                writer.message(list::VALUES, |writer| {
                    writer.double_always(any_value::DOUBLE, *number);
                });
            }
        }
        // `Array` is non-exhaustive.
        _ => {}
    }
}

fn write_text(rules: TextRules, writer: &mut Writer, text: &str) {
    let redacted = rules.redacted(text);
    writer.bytes_always(any_value::STRING, rules.limited(&redacted).as_bytes());
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;

    const ATTRIBUTES: u32 = super::super::fields::span::ATTRIBUTES;
    const PLAIN: TextRules = TextRules {
        redact: None,
        value_limit: None,
    };

    /// Returns the attributes as text, in order.
    fn shown(attributes: &Attributes) -> Vec<String> {
        let span = Span::decode(attributes.bytes()).unwrap();
        let value = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
            format!("{} {:?}", attribute.key, attribute.value.as_ref().unwrap().value)
        };
        span.attributes.iter().map(value).collect()
    }

    fn of(numbers: &[(&str, i64)]) -> Attributes {
        let mut attributes = Attributes::new(ATTRIBUTES, PLAIN, 128);
        for (key, number) in numbers {
            attributes.number(key, *number);
        }
        attributes
    }

    #[test]
    fn the_last_value_of_a_key_replaces_earlier_ones_despite_hash_collisions() {
        let long = "k".repeat(200);
        assert_eq!(hash("key.aaa.of"), hash("key.abh.of"));
        let keys = ["key.aaa.of", "key.abh.of", "", "a", &*long, "b"];
        for again in keys {
            let mut attributes = of(&keys.map(|key| (key, 1)));
            attributes.text("text.of.some.length", &"x".repeat(300));
            attributes.number(again, 2);
            let shown = shown(&attributes);
            assert_eq!(shown.len(), 7, "{shown:?}");
            assert_eq!(shown[6], format!("{again} Some(IntValue(2))"));
        }
    }

    #[test]
    fn attributes_beyond_the_limit_are_counted_but_new_values_of_known_keys_are_set() {
        let mut attributes = Attributes::new(ATTRIBUTES, PLAIN, 2);
        for (key, number) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
            attributes.number(key, number);
        }
        assert_eq!(shown(&attributes), ["b Some(IntValue(2))", "a Some(IntValue(4))"]);
        assert_eq!(attributes.dropped(), 1);
    }

    fn started_with(prewritten: &PrewrittenAttributes, limit: u32, keys: &[&str]) -> Attributes {
        let mut attributes = Attributes::new(ATTRIBUTES, PLAIN, limit);
        prewritten.write(&mut attributes, |into| {
            keys.iter().for_each(|key| into.number(key, 1));
        });
        attributes
    }

    #[test]
    fn attributes_beyond_the_limit_are_counted_for_every_span_that_begins_with_them() {
        let prewritten = PrewrittenAttributes::new();
        for _ in 0..2 {
            let mut attributes = started_with(&prewritten, 2, &["a", "bb", "ccc", "dddd"]);
            attributes.number("eeeee", 1);
            assert_eq!((shown(&attributes).len(), attributes.dropped()), (2, 3));
        }
    }

    #[test]
    fn prewritten_attributes_come_first_and_are_replaced_by_later_values() {
        let prewritten = PrewrittenAttributes::new();
        started_with(&prewritten, 4, &["a", "b"]);
        // `describe` of later spans is not called.
        let mut attributes = started_with(&prewritten, 4, &["other"]);
        attributes.number("cc", 3);
        assert_eq!(
            shown(&attributes),
            [
                "a Some(IntValue(1))",
                "b Some(IntValue(1))",
                "cc Some(IntValue(3))"
            ]
        );
        attributes.number("a", 4);
        attributes.number("dd", 5);
        attributes.number("ee", 6);
        assert_eq!(attributes.dropped(), 1);
        assert_eq!(shown(&attributes).len(), 4);
        assert_eq!(shown(&attributes)[2], "a Some(IntValue(4))");
    }
}
