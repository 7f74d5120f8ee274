//! Fuzzes broadcasts, which anyone with access to the server can send. Decoding commands and events never
//! panics and never takes long, and a decoded event survives encoding and decoding.

#![no_main]

use celeriac::{Event, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let _ = fuzzing::command_is_for(raw, "celery@vm");
    let events = Event::decode(raw);
    for event in &events {
        assert_eq!(
            Event::decode(event.encode().as_bytes()),
            std::slice::from_ref(event)
        );
    }
    let batch = Event::encode_batch("celery@vm", &events);
    assert_eq!(Event::decode(batch.as_bytes()), events);
});
