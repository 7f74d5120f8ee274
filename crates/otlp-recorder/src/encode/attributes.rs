//! Attributes, encoded as they are set. The last value of a key replaces earlier values.

use std::ops::Range;
use std::sync::OnceLock;

use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_proto::tonic::common::v1 as proto;
use opentelemetry_proto::tonic::trace::v1;
use prost::Message as _;

use super::fields::{any_value, key_value, list};
use super::wire::{Writer, content_at};
use crate::text::TextRules;

/// Memory in bytes for attributes that are added to detached ones.
#[cfg(feature = "tracing")]
const DETACHED_ROOM: usize = 64;

/// Attributes of a span, event or link that is being recorded.
#[derive(Debug)]
pub struct Attributes {
    /// Field number of the attributes in their parent message.
    field: u32,
    pub(super) text_rules: TextRules,
    limit: u32,
    /// The encoded attributes. Other fields of the parent message may be written after the last attribute.
    pub(super) writer: Writer,
    count: u32,
    /// Number of attributes beyond the limit.
    pub(super) dropped: u32,
    /// Hashes of the keys as a bit set. A new key whose hash is not in the set needs no search for an earlier
    /// value.
    keys: u128,
}

/// Attributes shared by many spans, encoded when the first of these spans starts. All spans must belong to
/// the same [`Recorder`](crate::Recorder).
#[derive(Debug, Default)]
pub struct PrewrittenAttributes(OnceLock<Attributes>);

impl PrewrittenAttributes {
    /// Creates shared attributes that are not encoded yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Writes the shared attributes at the start of a span's attributes.
    ///
    /// `describe` sets the shared attributes, and must set the same attributes for every span. It is called
    /// for the first span and for spans that already have attributes.
    pub fn write(&self, into: &mut Attributes, describe: impl FnOnce(&mut Attributes)) {
        if into.count > 0 {
            return describe(into);
        }
        let first = self.0.get_or_init(|| {
            let mut first = Attributes::new(into.field, into.text_rules, into.limit);
            describe(&mut first);
            first
        });
        into.writer.append(first.writer.bytes());
        into.count = first.count;
        into.dropped = first.dropped;
        into.keys = first.keys;
    }
}

impl Attributes {
    pub(crate) fn new(field: u32, text_rules: TextRules, limit: u32) -> Self {
        Self {
            field,
            text_rules,
            limit,
            writer: Writer::default(),
            count: 0,
            dropped: 0,
            keys: 0,
        }
    }

    /// Returns an empty set of attributes that belongs to no span yet.
    pub(crate) fn detached(text_rules: TextRules) -> Self {
        Self::new(super::fields::span::ATTRIBUTES, text_rules, u32::MAX)
    }

    /// Returns attributes that belong to no span and begin with `encoded` ones.
    #[cfg(feature = "tracing")]
    pub(crate) fn detached_from(text_rules: TextRules, encoded: &[u8]) -> Self {
        let mut writer = Writer::with_capacity(encoded.len() + DETACHED_ROOM);
        writer.append(encoded);
        Self {
            writer,
            ..Self::detached(text_rules)
        }
    }

    /// Returns the attributes, encoded as fields of their parent message.
    #[cfg(feature = "tracing")]
    pub(crate) fn encoded(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Returns the attributes as the SDK represents them.
    pub(crate) fn decoded(&self) -> Vec<KeyValue> {
        let span = v1::Span::decode(self.writer.bytes()).unwrap_or_default();
        let attributes = span.attributes.into_iter();
        attributes
            .filter_map(|attribute| Some(KeyValue::new(attribute.key, decoded(attribute.value?.value?)?)))
            .collect()
    }

    /// Sets a string constant, which is not redacted.
    pub fn literal(&mut self, key: &str, text: &'static str) {
        self.unredacted(key, text);
    }

    /// Sets a string.
    pub fn text(&mut self, key: &str, text: &str) {
        if self.admits(key) {
            let redacted = self.text_rules.redacted(text);
            let text = self.text_rules.limited(&redacted);
            self.writer.string_attribute(self.field, key, text);
        }
    }

    /// Sets a string that needs no redaction, such as the text of a number or of an IP address.
    pub fn unredacted(&mut self, key: &str, text: &str) {
        if self.admits(key) {
            let text = self.text_rules.limited(text);
            self.writer.string_attribute(self.field, key, text);
        }
    }

    /// Sets a string that consists of `parts`, each of which is redacted separately.
    pub fn text_of<'a>(&mut self, key: &str, parts: impl IntoIterator<Item = &'a str>) {
        if self.admits(key) {
            let mut text = String::new();
            for part in parts {
                text.push_str(&self.text_rules.redacted(part));
            }
            let text = self.text_rules.limited(&text);
            self.writer.string_attribute(self.field, key, text);
        }
    }

    /// Sets an integer.
    pub fn number(&mut self, key: &str, number: i64) {
        if self.admits(key) {
            self.writer.int_attribute(self.field, key, number);
        }
    }

    /// Sets an attribute of any type. Also redacts the key, which in the other methods is a constant.
    pub fn set(&mut self, attribute: &KeyValue) {
        let key = self.text_rules.redacted(attribute.key.as_str());
        self.value(&key, &attribute.value);
    }

    /// Sets an attribute of any type whose key is a constant.
    pub(crate) fn value(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(text) => self.text(key, text.as_str()),
            Value::I64(number) => self.number(key, *number),
            other => {
                if self.admits(key) {
                    let rules = self.text_rules;
                    self.writer.message(self.field, |writer| {
                        writer.string(key_value::KEY, key);
                        writer.message(key_value::VALUE, |writer| write_value(rules, writer, other));
                    });
                }
            }
        }
    }

    /// Sets all `attributes` and appends their encoding to `writer`.
    pub(super) fn write_all(&mut self, attributes: &[KeyValue], writer: &mut Writer) {
        attributes.iter().for_each(|attribute| self.set(attribute));
        writer.append(self.writer.bytes());
    }

    /// Clears the content and keeps at most `kept` bytes of memory.
    pub(super) fn clear(&mut self, kept: usize) {
        self.writer.clear(kept);
        self.count = 0;
        self.dropped = 0;
        self.keys = 0;
    }

    /// Removes any earlier value of `key` and counts the new one; returns false if the limit is reached.
    #[inline]
    fn admits(&mut self, key: &str) -> bool {
        let bit = 1 << hash(key);
        if self.keys & bit != 0 {
            self.remove(key);
        }
        self.keys |= bit;
        if self.count >= self.limit {
            self.dropped += 1;
            return false;
        }
        self.count += 1;
        true
    }

    #[cold]
    fn remove(&mut self, key: &str) {
        if let Some(attribute) = find(self.writer.bytes(), self.field, key) {
            self.writer.remove(attribute);
            self.count -= 1;
        }
    }
}

/// Hashes the length and the first and last eight bytes, which distinguish keys in practice. The hash is less
/// than 128.
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
    // The multiplier of FxHash, which mixes the highest bits best.
    (word.wrapping_mul(0x517c_c1b7_2722_0a95) >> 57) as u32
}

/// Returns the position of the attribute `key`.
fn find(attributes: &[u8], field: u32, key: &str) -> Option<Range<usize>> {
    let mut start = 0;
    while start < attributes.len() {
        let attribute = content_at(attributes, start, field)?;
        // The encoding may omit an empty key.
        let found = content_at(&attributes[..attribute.end], attribute.start, key_value::KEY);
        if attributes[found.unwrap_or_default()] == *key.as_bytes() {
            return Some(start..attribute.end);
        }
        start = attribute.end;
    }
    None
}

fn decoded(value: proto::any_value::Value) -> Option<Value> {
    use proto::any_value::Value as Proto;
    Some(match value {
        Proto::StringValue(text) => text.into(),
        Proto::BoolValue(truth) => truth.into(),
        Proto::IntValue(number) => number.into(),
        Proto::DoubleValue(number) => number.into(),
        Proto::ArrayValue(array) => decoded_array(array)?,
        // Attributes of spans have no other types.
        _ => return None,
    })
}

/// Decodes an array whose elements have the same type.
fn decoded_array(array: proto::ArrayValue) -> Option<Value> {
    let values = array.values.into_iter().filter_map(|value| decoded(value.value?));
    let values: Vec<Value> = values.collect();
    macro_rules! all {
        ($variant:ident, $array:ident) => {{
            let of_type = values.into_iter().filter_map(|value| match value {
                Value::$variant(value) => Some(value),
                _ => None,
            });
            Array::$array(of_type.collect())
        }};
    }
    Some(Value::Array(match values.first()? {
        Value::String(_) => all!(String, String),
        Value::Bool(_) => all!(Bool, Bool),
        Value::I64(_) => all!(I64, I64),
        Value::F64(_) => all!(F64, F64),
        _ => return None,
    }))
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
    let mut write = |value: Value| {
        writer.message(list::VALUES, |writer| write_value(rules, writer, &value));
    };
    match array {
        Array::String(texts) => {
            for text in texts {
                writer.message(list::VALUES, |writer| write_text(rules, writer, text.as_str()));
            }
        }
        Array::Bool(truths) => truths.iter().for_each(|truth| write((*truth).into())),
        Array::I64(numbers) => numbers.iter().for_each(|number| write((*number).into())),
        Array::F64(numbers) => numbers.iter().for_each(|number| write((*number).into())),
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

    use super::*;

    const ATTRIBUTES: u32 = super::super::fields::span::ATTRIBUTES;
    const PLAIN: TextRules = TextRules {
        redact: None,
        value_limit: None,
    };

    /// Returns the attributes as text, in order.
    fn shown(attributes: &Attributes) -> Vec<String> {
        let span = Span::decode(attributes.writer.bytes()).unwrap();
        let value = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
            format!("{} {:?}", attribute.key, attribute.value.as_ref().unwrap().value)
        };
        span.attributes.iter().map(value).collect()
    }

    fn with_numbers(numbers: &[(&str, i64)]) -> Attributes {
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
            let mut attributes = with_numbers(&keys.map(|key| (key, 1)));
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
        assert_eq!(attributes.dropped, 1);
    }

    fn started_with(prewritten: &PrewrittenAttributes, limit: u32, keys: &[&str]) -> Attributes {
        let mut attributes = Attributes::new(ATTRIBUTES, PLAIN, limit);
        prewritten.write(&mut attributes, |into| {
            keys.iter().for_each(|key| into.number(key, 1));
        });
        attributes
    }

    #[test]
    fn prewritten_attributes_beyond_the_limit_are_counted_for_every_span() {
        let prewritten = PrewrittenAttributes::new();
        for _ in 0..2 {
            let mut attributes = started_with(&prewritten, 2, &["a", "bb", "ccc", "dddd"]);
            attributes.number("eeeee", 1);
            assert_eq!((shown(&attributes).len(), attributes.dropped), (2, 3));
        }
    }

    #[test]
    fn prewritten_attributes_come_first_and_are_replaced_by_later_values() {
        let prewritten = PrewrittenAttributes::new();
        started_with(&prewritten, 4, &["a", "b"]);
        // `describe` is not called for later spans.
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
        assert_eq!(attributes.dropped, 1);
        assert_eq!(shown(&attributes).len(), 4);
        assert_eq!(shown(&attributes)[2], "a Some(IntValue(4))");
    }
}
