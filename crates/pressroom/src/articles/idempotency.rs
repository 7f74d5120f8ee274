//! Requests that may be sent again without being done again: a client that had no answer repeats its
//! request under the same key, and is answered what it would have been the first time.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Article, Draft};

/// How long a request is remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);

/// What a client calls a request: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The longest key, in characters.
    pub const MAX_CHARS: usize = 255;

    /// The key, if it can be one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fits = (1..=Self::MAX_CHARS).contains(&text.len())
            && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let text = std::str::from_utf8(text).ok().filter(|_| fits)?;
        Some(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of what a request asks for, which tells a repetition from another request.
pub type Fingerprint = [u8; 32];

/// A request that is to be done once.
#[derive(Debug, Clone)]
pub struct OnceOnly {
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    /// What was remembered before this is forgotten.
    pub since: Timestamp,
}

impl OnceOnly {
    /// The fields count, not how their JSON is written.
    #[must_use]
    pub fn new(key: IdempotencyKey, draft: &Draft, now: Timestamp) -> Self {
        let mut fingerprint = Sha256::new();
        for field in [&draft.title, &draft.description, &draft.body] {
            fingerprint.update((field.len() as u64).to_be_bytes());
            fingerprint.update(field.as_bytes());
        }
        Self {
            key,
            fingerprint: fingerprint.finalize().into(),
            since: forgotten_before(now),
        }
    }
}

/// What a request was answered the first time.
#[derive(Debug, Clone)]
pub struct FirstAnswer {
    pub fingerprint: Fingerprint,
    /// As it was then.
    pub article: Article,
}

/// When a request must have been made to be forgotten now.
#[must_use]
pub fn forgotten_before(now: Timestamp) -> Timestamp {
    now.saturating_sub(REMEMBERED_FOR).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_ascii_of_at_most_255_characters() {
        for good in [
            "a",
            "5d2c2e5e-6e51-4f0e-a5f1-6f4ff6d1b9a0",
            "\"quoted\" ~!",
            &"x".repeat(255),
        ] {
            assert_eq!(IdempotencyKey::parse(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", "ü", "a\tb", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn what_moves_from_one_field_to_another_is_another_request() {
        let draft = |title: &str, description: &str| Draft {
            title: title.to_owned(),
            description: description.to_owned(),
            body: "x".to_owned(),
        };
        let key = IdempotencyKey::parse(b"k").unwrap();
        let fingerprint = |draft| OnceOnly::new(key.clone(), &draft, Timestamp::UNIX_EPOCH).fingerprint;
        assert_eq!(fingerprint(draft("ab", "c")), fingerprint(draft("ab", "c")));
        assert_ne!(fingerprint(draft("ab", "c")), fingerprint(draft("a", "bc")));
    }
}
