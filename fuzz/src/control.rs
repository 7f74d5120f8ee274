//! Anyone who reaches the server can broadcast. Reading commands and events never panics and takes no long time, and
//! an event that is read is written and read again as the same.

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
