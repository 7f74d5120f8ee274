//! Any bytes may lie in a queue. Reading them never panics; what is read is written and read again as the same; and
//! the marks of a delivery change nothing else.

#![no_main]

use celeriac::{Message, fuzzing};
use libfuzzer_sys::fuzz_target;

/// What an error text may have of a foreign message.
const LONGEST_REASON: usize = 500;

fuzz_target!(|raw: &[u8]| {
    let marked = fuzzing::mark_redelivered(raw);
    let cleared = fuzzing::as_never_delivered(raw);
    match Message::decode(raw) {
        Ok(mut message) => {
            // Bodies are always written so.
            message.properties.body_encoding = Some("base64".to_owned());
            let encoded = message.encode();
            let again = Message::decode(encoded.as_bytes()).expect("what is written can be read");
            assert_eq!(again, message);
            assert_eq!(again.encode(), encoded);

            let marked = marked.expect("what can be read can be marked");
            let redelivered = Message::decode(marked.as_bytes()).expect("a mark breaks nothing");
            assert!(redelivered.redelivered());
            assert_eq!(run(&redelivered), run(&message));
            let cleared = cleared.expect("what can be read can be cleared of marks");
            let new = Message::decode(cleared.as_bytes()).expect("clearing marks breaks nothing");
            assert!(!new.redelivered());
            assert_eq!(run(&new), run(&message));
        }
        Err(poison) => {
            assert!(poison.to_string().len() < LONGEST_REASON);
        }
    }
});

/// What a worker runs of a message.
fn run(message: &Message) -> impl PartialEq + std::fmt::Debug {
    let headers = &message.headers;
    (
        headers.task.clone(),
        headers.id.clone(),
        headers.retries,
        headers.eta,
        headers.expires,
        message.queue().to_owned(),
        message.properties.priority,
        message.args.clone(),
        message.kwargs.clone(),
        message.embed.clone(),
    )
}
