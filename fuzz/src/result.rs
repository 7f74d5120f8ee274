//! Anyone may write results and dead letters. Reading them never panics, and what is read is written and read
//! again as the same.

#![no_main]

use celeriac::{ResultMeta, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    if let Some(meta) = ResultMeta::decode(raw) {
        let encoded = meta.encode();
        let again = ResultMeta::decode(encoded.as_bytes()).expect("what is written can be read");
        assert_eq!(again, meta);
        assert_eq!(again.encode(), encoded);
    }
    let letter = fuzzing::dead_letter(raw);
    assert_eq!(letter, fuzzing::dead_letter(raw));
    // Buried as a message, the same bytes are the same message.
    let buried = fuzzing::buried("celery", raw);
    assert_eq!(fuzzing::dead_letter(buried.as_bytes()).raw, raw);
});
