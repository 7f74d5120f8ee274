//! Fuzzes the list elements of a queue. Decoding never panics, a decoded message survives encoding and
//! decoding, and marking a delivery changes nothing else.

#![no_main]

use celeriac::{Message, fuzzing};
use libfuzzer_sys::fuzz_target;

/// Maximum length of an error text, in bytes: it must not quote the message at length.
const MAX_REASON: usize = 500;

fuzz_target!(|raw: &[u8]| {
    let marked = fuzzing::mark_redelivered(raw);
    let cleared = fuzzing::as_never_delivered(raw);
    match Message::decode(raw) {
        Ok(mut message) => {
            // Bodies are always written as base64.
            message.properties.body_encoding = Some("base64".to_owned());
            let encoded = message.encode();
            let again = Message::decode(encoded.as_bytes()).expect("an encoded message can be decoded");
            assert_eq!(again, message);
            assert_eq!(again.encode(), encoded);

            let marked = marked.expect("a decodable message can be marked");
            let redelivered = Message::decode(marked.as_bytes()).expect("a marked message can be decoded");
            assert!(redelivered.redelivered());
            assert_eq!(run(&redelivered), run(&message));
            let cleared = cleared.expect("the marks of a decodable message can be removed");
            let new = Message::decode(cleared.as_bytes()).expect("a message without marks can be decoded");
            assert!(!new.redelivered());
            message.headers.retries = 0;
            assert_eq!(run(&new), run(&message));
        }
        Err(poison) => {
            assert!(poison.to_string().len() < MAX_REASON);
        }
    }
});

/// Returns the parts of a message that determine what a worker runs.
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
