use memchr::memmem;
use prost::Message as _;

use super::*;
use crate::samples;

/// Returns the number of occurrences of `text` in the encoded export.
fn count(export: &Export, text: &str) -> usize {
    memmem::find_iter(&export.encode(), text).count()
}

fn masked(mut export: Export) -> Export {
    mask(&mut export);
    export
}

#[test]
fn every_string_of_every_signal_is_masked() {
    for export in samples::exports("alice.smith@example.com") {
        let texts = count(&export, "alice.smith");
        assert!(texts > 10);
        let masked = masked(export);
        assert_eq!(count(&masked, "alice.smith"), 0);
        assert_eq!(count(&masked, "al***@example.com"), texts);
    }
}

#[test]
fn an_address_is_masked_in_any_context() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..100 {
        let local = random.text(3..20, b"abcdefghijklmnopqrstuvwxyzABCXYZ0189._+-");
        let sign = ["@", "%40", "%2540"][random.below(3)];
        let host = random.text(1..10, b"abcxyz09");
        let (before, after) = (
            random.text(0..8, b" <>,;:/?=&\"'()[]{}\n"),
            random.text(0..8, b" >,;/?=&\"')\n"),
        );
        let text = format!("{before}{local}{sign}{host}.example{after}");
        for export in samples::exports(&text) {
            let masked = masked(export);
            assert_eq!(count(&masked, &format!("{local}{sign}")), 0, "{text:?}");
            assert_eq!(
                masked,
                self::masked(masked.clone()),
                "{text:?} is not masked completely"
            );
        }
    }
}

#[test]
fn text_without_an_address_is_unchanged() {
    for text in [
        "",
        "plain",
        "5 @ 3",
        "100%",
        "@decorator",
        "a@b",
        "SELECT 'x' WHERE y LIKE '%40'",
    ] {
        for export in samples::exports(text) {
            assert_eq!(masked(export.clone()), export, "{text:?}");
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_are_unchanged() {
    let binary = b"\xff alice@example.com".to_vec();
    let mut value = AnyValue {
        value: Some(Value::BytesValue(binary.clone())),
    };
    mask_value(&mut value);
    assert_eq!(value.value, Some(Value::BytesValue(binary)));
}

#[test]
fn a_value_nested_as_deeply_as_the_decoder_allows_is_masked() {
    let mut deepest = None;
    let mut value = AnyValue {
        value: Some(Value::StringValue("alice@example.com".to_owned())),
    };
    for _ in 0..200 {
        value = AnyValue {
            value: Some(Value::ArrayValue(
                opentelemetry_proto::tonic::common::v1::ArrayValue { values: vec![value] },
            )),
        };
        match AnyValue::decode(value.encode_to_vec().as_slice()) {
            Ok(decoded) => deepest = Some(decoded),
            Err(_) => break,
        }
    }
    let mut deepest = deepest.expect("some nesting is allowed");
    mask_value(&mut deepest);
    let encoded = deepest.encode_to_vec();
    assert_eq!(memmem::find(&encoded, b"alice"), None);
    assert!(memmem::find(&encoded, b"al***@").is_some());
    assert!(
        AnyValue::decode(value.encode_to_vec().as_slice()).is_err(),
        "the decoder does not limit the nesting"
    );
}

/// Xorshift generator, which returns the same strings in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn text(&mut self, length: std::ops::Range<usize>, alphabet: &[u8]) -> String {
        let length = length.start + self.below(length.len());
        (0..length)
            .map(|_| char::from(alphabet[self.below(alphabet.len())]))
            .collect()
    }
}
