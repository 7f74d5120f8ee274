//! Protobuf's wire format, the little of it that spans and log records take
//! (<https://protobuf.dev/programming-guides/encoding/>). They are many: writing them straight into bytes costs a
//! fraction of building messages first and encoding those.

use std::cell::Cell;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// A message being written. Fields at their defaults are left out where a method does not say otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Vec<u8>);

/// The most bytes that a thread keeps for what it writes next.
const KEPT_SCRATCH: usize = 16 * 1024;

/// The most bytes that a number takes.
const LONGEST_VARINT: usize = 10;

thread_local! {
    static SCRATCH: Cell<Wire> = const { Cell::new(Wire(Vec::new())) };
}

/// Has `write` fill an empty message whose memory this thread uses again and again.
pub(super) fn with_scratch(write: impl FnOnce(&mut Wire)) {
    // At the end of a thread there may be none left.
    let mut wire = SCRATCH.try_with(Cell::take).unwrap_or_default();
    write(&mut wire);
    wire.clear(KEPT_SCRATCH);
    let _ = SCRATCH.try_with(|scratch| scratch.set(wire));
}

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const FIXED32: u32 = 5;

impl Wire {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes whole fields out.
    pub(super) fn remove(&mut self, place: Range<usize>) {
        self.0.drain(place);
    }

    /// In bytes.
    pub(super) fn length(&self) -> usize {
        self.0.len()
    }

    /// Empties it; of its memory at most `kept` bytes stay.
    pub(super) fn clear(&mut self, kept: usize) {
        self.0.clear();
        self.0.shrink_to(kept);
    }

    /// The fields of `other` after those that are there.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Puts `other` in the place of as many bytes, which are there.
    pub(super) fn overwrite(&mut self, start: usize, other: &Self) {
        self.0[start..start + other.0.len()].copy_from_slice(&other.0);
    }

    /// Whole fields that are encoded.
    pub(super) fn fields(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    pub(super) fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.number_set(field, number);
        }
    }

    /// Also zero: for members of a `oneof`.
    pub(super) fn number_set(&mut self, field: u32, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    pub(super) fn fixed32(&mut self, field: u32, number: u32) {
        if number != 0 {
            self.tag(field, FIXED32);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// `field` is below 16.
    pub(super) fn fixed64(&mut self, field: u32, number: u64) {
        if number != 0 {
            let mut whole = [(field << 3 | FIXED64) as u8; 9];
            whole[1..].copy_from_slice(&number.to_le_bytes());
            self.0.extend_from_slice(&whole);
        }
    }

    /// A trace's or a span's id; `field` is below 16. Written at once, because every span has several.
    pub(super) fn id<const LENGTH_OF_ID: usize>(&mut self, field: u32, id: [u8; LENGTH_OF_ID]) {
        let mut whole = [0; 18];
        whole[0] = (field << 3 | LENGTH) as u8;
        whole[1] = LENGTH_OF_ID as u8;
        whole[2..2 + LENGTH_OF_ID].copy_from_slice(&id);
        self.0.extend_from_slice(&whole[..2 + LENGTH_OF_ID]);
    }

    /// Also zero: for members of a `oneof`.
    pub(super) fn double_set(&mut self, field: u32, number: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes_set(field, text.as_bytes());
        }
    }

    /// Also no bytes at all: for members of a `oneof`, and for messages that are there and empty.
    pub(super) fn bytes_set(&mut self, field: u32, bytes: &[u8]) {
        self.head(field, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// The beginning of a text or a message of `length` bytes, which must follow.
    pub(super) fn head(&mut self, field: u32, length: usize) {
        self.tag(field, LENGTH);
        self.varint(length as u64);
    }

    /// A message in the message, empty or not. Its length is known when it is written, so one that is longer than most
    /// is moved by a byte or some.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH);
        let start = self.0.len();
        self.0.push(0);
        write(self);
        let length = self.0.len() - start - 1;
        match u8::try_from(length) {
            Ok(short @ 0..=0x7f) => self.0[start] = short,
            _ => self.set_length(start..start + 1, length),
        }
    }

    /// A message that is encoded, in pieces.
    pub(super) fn message_of(&mut self, field: u32, pieces: &[&[u8]]) {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.0.reserve(field_length(field, length));
        self.head(field, length);
        pieces.iter().for_each(|piece| self.0.extend_from_slice(piece));
    }

    /// A key with a text: `KeyValue` of OTLP. All lengths being known, nothing is moved afterwards.
    pub(super) fn text_attribute(&mut self, field: u32, key: &str, text: &str) {
        if let Some(head) = short_head(field, key, 2 + text.len()) {
            let middle = [byte_tag(2), 2 + text.len() as u8, byte_tag(1), text.len() as u8];
            self.0.reserve(head.len() + key.len() + middle.len() + text.len());
            self.0.extend_from_slice(&head);
            self.0.extend_from_slice(key.as_bytes());
            self.0.extend_from_slice(&middle);
            self.0.extend_from_slice(text.as_bytes());
        } else {
            self.long_attribute(field, key, field_length(1, text.len()));
            self.bytes_set(1, text.as_bytes());
        }
    }

    /// A key with a whole number: `KeyValue` of OTLP.
    pub(super) fn number_attribute(&mut self, field: u32, key: &str, number: u64) {
        let value = 1 + varint_length(number);
        if let Some(head) = short_head(field, key, value) {
            let mut tail = [0; 3 + LONGEST_VARINT];
            tail[..3].copy_from_slice(&[byte_tag(2), value as u8, (3 << 3 | VARINT) as u8]);
            let length = 3 + put_varint(&mut tail[3..], number);
            self.0.reserve(head.len() + key.len() + length);
            self.0.extend_from_slice(&head);
            self.0.extend_from_slice(key.as_bytes());
            self.0.extend_from_slice(&tail[..length]);
        } else {
            self.long_attribute(field, key, value);
            self.number_set(3, number);
        }
    }

    /// A `KeyValue` of any length but for its value, an `AnyValue` of `value` bytes, which must follow.
    #[cold]
    fn long_attribute(&mut self, field: u32, key: &str, value: usize) {
        self.head(field, field_length(1, key.len()) + field_length(2, value));
        self.bytes_set(1, key.as_bytes());
        self.head(2, value);
    }

    fn set_length(&mut self, place: Range<usize>, length: usize) {
        let mut head = Self::default();
        head.varint(length as u64);
        self.0.splice(place, head.0);
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn varint(&mut self, number: u64) {
        // As most are.
        if number <= 0x7f {
            self.0.push(number as u8);
            return;
        }
        let mut bytes = [0; LONGEST_VARINT];
        let length = put_varint(&mut bytes, number);
        self.0.extend_from_slice(&bytes[..length]);
    }
}

/// What is before the key of a `KeyValue` whose value has `value` bytes, where every tag and every length in it fits into a
/// byte, as in nearly all.
#[inline]
fn short_head(field: u32, key: &str, value: usize) -> Option<[u8; 4]> {
    let whole = 2 + key.len() + 2 + value;
    (field < 16 && whole <= 0x7f).then(|| [byte_tag(field), whole as u8, byte_tag(1), key.len() as u8])
}

/// The tag of a text or a message as a field below 16.
const fn byte_tag(field: u32) -> u8 {
    (field << 3 | LENGTH) as u8
}

/// Since 1970, as OTLP has all times.
pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(since.subsec_nanos().into())
}

/// How many bytes a text or message of `length` bytes takes as a field.
pub(super) fn field_length(field: u32, length: usize) -> usize {
    varint_length(u64::from(field << 3 | LENGTH)) + varint_length(length as u64) + length
}

/// The content of the text or message whose field begins at `start`, and whose field number is below 16. `None` when
/// that is not what is there.
pub(super) fn field_at(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let mut length = 0_usize;
    for (index, byte) in bytes.get(start + 1..)?.iter().take(9).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let content = start + index + 2;
            return Some(content..content.checked_add(length)?).filter(|content| content.end <= bytes.len());
        }
    }
    None
}

/// Writes a number to the beginning of `bytes`, of which there are enough; gives how many it takes.
fn put_varint(bytes: &mut [u8], mut number: u64) -> usize {
    let mut length = 1;
    for byte in &mut *bytes {
        *byte = number as u8 & 0x7f;
        number >>= 7;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
        length += 1;
    }
    length
}

/// How many bytes a number takes.
fn varint_length(number: u64) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_bytes_as_they_need() {
        for (number, bytes) in [
            (1_u64, &[0x08, 0x01][..]),
            (127, &[0x08, 0x7f]),
            (128, &[0x08, 0x80, 0x01]),
            (300, &[0x08, 0xac, 0x02]),
            (u64::MAX, &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut wire = Wire::default();
            wire.number(1, number);
            assert_eq!(wire.into_bytes(), bytes, "{number}");
        }
        let mut wire = Wire::default();
        wire.number(1, 0);
        wire.number_set(16, 0);
        assert_eq!(wire.into_bytes(), [0x80, 0x01, 0x00]);
    }

    #[test]
    fn messages_of_every_length_have_it_before_them() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let content = vec![7; length];
            let mut wire = Wire::default();
            wire.message(2, |inner| inner.0.extend_from_slice(&content));
            let mut expected = Wire::default();
            expected.bytes_set(2, &content);
            let expected = expected.into_bytes();
            assert_eq!(wire.into_bytes(), expected, "{length}");
            let (first, last) = content.split_at(length / 3);
            let mut pieces = Wire::default();
            pieces.message_of(2, &[first, &[], last]);
            assert_eq!(pieces.into_bytes(), expected, "{length}");
        }
    }

    #[test]
    fn a_text_of_every_length_is_an_attribute() {
        for length in [0, 1, 110, 120, 127, 128, 16_370, 16_384, 70_000] {
            let (key, text) = ("a.key", "x".repeat(length));
            let mut wire = Wire::default();
            wire.text_attribute(9, key, &text);
            let mut expected = Wire::default();
            expected.message(9, |wire| {
                wire.text(1, key);
                wire.message(2, |wire| wire.bytes_set(1, text.as_bytes()));
            });
            assert_eq!(wire.into_bytes(), expected.into_bytes(), "{length}");
        }
    }

    #[test]
    fn a_number_of_every_length_is_an_attribute() {
        for (field, key) in [(9, "a.key"), (9, ""), (20, "a.key"), (9, &*"k".repeat(120))] {
            for number in [0, 1, 127, 128, 1 << 35, u64::MAX] {
                let mut wire = Wire::default();
                wire.number_attribute(field, key, number);
                let mut expected = Wire::default();
                expected.message(field, |wire| {
                    wire.bytes_set(1, key.as_bytes());
                    wire.message(2, |wire| wire.number_set(3, number));
                });
                assert_eq!(wire.into_bytes(), expected.into_bytes(), "{field} {key} {number}");
            }
        }
    }

    #[test]
    fn what_is_emptied_keeps_no_more_memory_than_it_may() {
        for length in [0, 100, 5_000] {
            let mut wire = Wire::default();
            wire.text(1, &"x".repeat(length));
            wire.clear(1_000);
            assert_eq!(wire.length(), 0);
            assert!(wire.0.capacity() <= 1_000, "{length}");
        }
    }

    #[test]
    fn an_id_is_its_bytes() {
        let (mut wire, mut expected) = (Wire::default(), Wire::default());
        wire.id(1, [7; 16]);
        wire.id(4, [9; 8]);
        expected.bytes_set(1, &[7; 16]);
        expected.bytes_set(4, &[9; 8]);
        assert_eq!(wire.into_bytes(), expected.into_bytes());
    }
}
