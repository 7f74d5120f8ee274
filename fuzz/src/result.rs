//! Fuzzes stored results and dead letters. Decoding never panics, and a decoded value survives encoding and
//! decoding.

#![no_main]

use celeriac::{ResultMeta, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    if let Some(meta) = ResultMeta::decode(raw) {
        let encoded = meta.encode();
        let again = ResultMeta::decode(encoded.as_bytes()).expect("an encoded result can be decoded");
        assert_eq!(again, meta);
        assert_eq!(again.encode(), encoded);
    }
    let letter = fuzzing::dead_letter(raw);
    assert_eq!(letter, fuzzing::dead_letter(raw));
    // Burying bytes as a message keeps them unchanged.
    let buried = fuzzing::buried("celery", raw);
    assert_eq!(fuzzing::dead_letter(buried.as_bytes()).raw, raw);
});
