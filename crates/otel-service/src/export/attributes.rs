//! Attributes as the bytes that they are in OTLP, written when they are set. A key has one value, the last one.

use std::ops::Range;

use opentelemetry::{Array, KeyValue, Value};

use super::tidy::Tidy;
use super::wire::{Wire, field_at};

/// The attributes of one span, event or link.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// Their number as a field of what has them.
    field: u32,
    pub(super) tidy: Tidy,
    /// The most that are kept.
    limit: u32,
    /// Those that are before the others, written long ago.
    fixed: Option<&'static Fixed>,
    wire: Wire,
    count: u32,
    dropped: u32,
    /// The keys that are there, a bit for each: telling keys apart by their bytes is most of what looking for repeated
    /// ones takes.
    keys: u128,
}

/// Attributes that are the same again and again. They are kept for as long as the process lives: counting who uses them
/// would have processors take the count from each other for every span.
#[derive(Debug)]
pub(crate) struct Fixed {
    wire: Wire,
    count: u32,
    dropped: u32,
    keys: u128,
}

impl Attributes {
    pub(crate) fn new(field: u32, tidy: Tidy, limit: u32) -> Self {
        Self {
            field,
            tidy,
            limit,
            fixed: None,
            wire: Wire::default(),
            count: 0,
            dropped: 0,
            keys: 0,
        }
    }

    /// Begins with attributes that were written before, by others with the same field and [`Tidy`].
    pub(crate) fn begin_with(&mut self, fixed: &'static Fixed) {
        self.count = fixed.count;
        self.dropped = fixed.dropped;
        self.keys = fixed.keys;
        self.fixed = Some(fixed);
    }

    /// What has been written, to begin others with.
    pub(crate) fn into_fixed(self) -> &'static Fixed {
        Box::leak(Box::new(Fixed {
            wire: self.wire,
            count: self.count,
            dropped: self.dropped,
            keys: self.keys,
        }))
    }

    /// Forgets them; of their memory at most `kept` bytes stay.
    pub(super) fn clear(&mut self, kept: usize) {
        self.fixed = None;
        self.wire.clear(kept);
        self.count = 0;
        self.dropped = 0;
        self.keys = 0;
    }

    /// A text that the program's author wrote, which is nobody's address.
    pub(crate) fn literal(&mut self, key: &str, text: &'static str) {
        if self.admits(key) {
            self.wire.text_attribute(self.field, key, self.tidy.limited(text));
        }
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        if self.admits(key) {
            let masked = self.tidy.masked(text);
            self.wire
                .text_attribute(self.field, key, self.tidy.limited(&masked));
        }
    }

    pub(crate) fn number(&mut self, key: &str, number: i64) {
        if self.admits(key) {
            self.wire
                .number_attribute(self.field, key, number.cast_unsigned());
        }
    }

    pub(crate) fn set(&mut self, attribute: &KeyValue) {
        let key = attribute.key.as_str();
        match &attribute.value {
            Value::String(text) => self.text(key, text.as_str()),
            Value::I64(number) => self.number(key, *number),
            other => {
                if self.admits(key) {
                    let tidy = self.tidy;
                    self.wire.message(self.field, |wire| {
                        wire.text(1, key);
                        wire.message(2, |wire| value(tidy, wire, other));
                    });
                }
            }
        }
    }

    /// All of them, in two pieces.
    pub(super) fn pieces(&self) -> [&[u8]; 2] {
        let fixed = self.fixed.map(|fixed| fixed.wire.bytes());
        [fixed.unwrap_or_default(), self.wire.bytes()]
    }

    /// Writes all of them.
    pub(super) fn write(&self, wire: &mut Wire) {
        self.pieces().into_iter().for_each(|piece| wire.fields(piece));
    }

    /// Where what follows them is written, when there will be no more.
    pub(super) fn after(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// So many have been left out by others.
    pub(super) fn dropped_before(&mut self, count: u32) {
        self.dropped = count;
    }

    /// How many were beyond the limit.
    pub(super) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Whether there is a place for `key`, which has none any longer where it had one.
    #[inline]
    fn admits(&mut self, key: &str) -> bool {
        let bit = bit_of(key);
        if self.keys & bit != 0 {
            self.remove(key);
        }
        if self.count >= self.limit {
            self.dropped += 1;
            return false;
        }
        self.keys |= bit;
        self.count += 1;
        true
    }

    #[cold]
    fn remove(&mut self, key: &str) {
        if let Some(fixed) = self.fixed
            && find(&fixed.wire, key).is_some()
        {
            let mut all = fixed.wire.clone();
            all.append(&self.wire);
            self.wire = all;
            self.fixed = None;
        }
        if let Some(place) = find(&self.wire, key) {
            self.wire.remove(place);
            self.count -= 1;
        }
    }
}

/// One of 128 bits. Keys of different bits differ; two of the same bit cost a search, so the numbers are chosen for the keys
/// that the spans of requests, statements and tasks have to have none in common.
fn bit_of(key: &str) -> u128 {
    let bytes = key.as_bytes();
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => {
            let short = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            (short, short)
        }
    };
    let word = (first ^ last.rotate_left(32)).wrapping_add(bytes.len() as u64);
    1 << (word.wrapping_mul(0x517c_c1b7_2722_0a95) >> 57)
}

/// Where the attribute with this key stands.
fn find(attributes: &Wire, key: &str) -> Option<Range<usize>> {
    let bytes = attributes.bytes();
    let mut start = 0;
    while start < bytes.len() {
        let content = field_at(bytes, start)?;
        // An empty key is not written.
        let named = match bytes.get(content.start) {
            Some(&tag) if tag == 1 << 3 | 2 => &bytes[field_at(bytes, content.start)?],
            _ => &[],
        };
        if named == key.as_bytes() {
            return Some(start..content.end);
        }
        start = content.end;
    }
    None
}

/// The content of an `AnyValue`.
fn value(tidy: Tidy, wire: &mut Wire, of: &Value) {
    match of {
        Value::String(text) => text_value(tidy, wire, text.as_str()),
        Value::Bool(truth) => wire.number_set(2, u64::from(*truth)),
        Value::I64(number) => wire.number_set(3, number.cast_unsigned()),
        Value::F64(number) => wire.double_set(4, *number),
        Value::Array(of) => wire.message(5, |wire| array(tidy, wire, of)),
        // A kind that a later version of the API brings.
        other => text_value(tidy, wire, &other.as_str()),
    }
}

fn array(tidy: Tidy, wire: &mut Wire, array: &Array) {
    match array {
        Array::String(texts) => {
            for text in texts {
                wire.message(1, |wire| text_value(tidy, wire, text.as_str()));
            }
        }
        Array::Bool(truths) => {
            for truth in truths {
                wire.message(1, |wire| wire.number_set(2, u64::from(*truth)));
            }
        }
        Array::I64(numbers) => {
            for number in numbers {
                wire.message(1, |wire| wire.number_set(3, number.cast_unsigned()));
            }
        }
        Array::F64(numbers) => {
            for number in numbers {
                wire.message(1, |wire| wire.double_set(4, *number));
            }
        }
        // A kind that a later version of the API brings.
        _ => {}
    }
}

/// An attribute's text, which has a limit.
fn text_value(tidy: Tidy, wire: &mut Wire, text: &str) {
    let masked = tidy.masked(text);
    wire.bytes_set(1, tidy.limited(&masked).as_bytes());
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;

    const PLAIN: Tidy = Tidy {
        masking: false,
        value_limit: None,
    };

    /// Keys in their order, with the value where it is a number.
    fn shown(attributes: &Attributes) -> Vec<String> {
        let mut wire = Wire::default();
        attributes.write(&mut wire);
        let span = Span::decode(&*wire.into_bytes()).unwrap();
        let value = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
            format!("{} {:?}", attribute.key, attribute.value.as_ref().unwrap().value)
        };
        span.attributes.iter().map(value).collect()
    }

    fn of(numbers: &[(&str, i64)]) -> Attributes {
        let mut attributes = Attributes::new(9, PLAIN, 128);
        for (key, number) in numbers {
            attributes.number(key, *number);
        }
        attributes
    }

    #[test]
    fn the_last_value_of_a_key_counts_whatever_the_others_are() {
        let long = "k".repeat(200);
        assert_eq!(bit_of("key.aaa.of"), bit_of("key.abh.of"));
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
    fn keys_of_one_span_share_no_bit() {
        let of_request = "http.request.method http.request.method_original http.route http.response.status_code url.path \
             url.scheme url.query server.address server.port client.address user_agent.original \
             network.protocol.version error.type user.id";
        let of_statement = "db.system.name db.namespace db.operation.name db.collection.name db.query.summary db.query.text \
             db.response.returned_rows db.response.status_code server.address server.port error.type";
        let of_task = "messaging.system messaging.operation.name messaging.operation.type messaging.destination.name \
             messaging.message.id celery.task_name celery.hostname celery.state celery.retries server.address \
             server.port error.type";
        for keys in [of_request, of_statement, of_task] {
            let bits = keys
                .split_whitespace()
                .map(bit_of)
                .fold(0, |bits, bit| bits | bit);
            assert_eq!(
                bits.count_ones() as usize,
                keys.split_whitespace().count(),
                "{keys}"
            );
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_a_known_key_is_not() {
        let mut attributes = Attributes::new(9, PLAIN, 2);
        for (key, number) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
            attributes.number(key, number);
        }
        assert_eq!(shown(&attributes), ["b Some(IntValue(2))", "a Some(IntValue(4))"]);
        assert_eq!(attributes.dropped(), 1);
    }

    #[test]
    fn what_was_beyond_the_limit_of_fixed_attributes_is_counted_in_every_span() {
        let mut some = Attributes::new(9, PLAIN, 2);
        for key in ["a", "bb", "ccc", "dddd"] {
            some.number(key, 1);
        }
        let fixed = some.into_fixed();
        let mut attributes = Attributes::new(9, PLAIN, 2);
        attributes.begin_with(fixed);
        attributes.number("eeeee", 1);
        assert_eq!((shown(&attributes).len(), attributes.dropped()), (2, 3));
    }

    #[test]
    fn fixed_attributes_come_first_and_give_way_to_others() {
        let fixed = of(&[("a", 1), ("b", 2)]).into_fixed();
        let mut attributes = Attributes::new(9, PLAIN, 4);
        attributes.begin_with(fixed);
        attributes.number("cc", 3);
        assert_eq!(
            shown(&attributes),
            [
                "a Some(IntValue(1))",
                "b Some(IntValue(2))",
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
