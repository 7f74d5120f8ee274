//! Idempotency keys. A client that received no response repeats its request with the same key, and receives
//! the response to the first request.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::article::{Article, Draft};

/// Lifetime of a key.
const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// Client-chosen key that makes a request safe to retry: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Maximum length of a key, in characters.
    pub const MAX_CHARS: usize = 255;

    /// Parses a key. Returns `None` if `text` is empty, too long, or not printable ASCII.
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

/// SHA-256 of a request's fields, which distinguishes a retry from a different request with the same key.
pub type Fingerprint = [u8; 32];

/// A request to run once.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    /// Keys stored at or before this time have expired.
    pub since: Timestamp,
}

impl IdempotentRequest {
    /// Creates the request. The fingerprint covers the fields of `draft`, not the formatting of their JSON.
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
            since: keys_expired_by(now),
        }
    }
}

/// The stored response to the first request with a key.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub fingerprint: Vec<u8>,
    /// The article as created.
    pub article: Article,
}

/// Returns the latest creation time of keys that have expired at `now`.
#[must_use]
pub fn keys_expired_by(now: Timestamp) -> Timestamp {
    now.saturating_sub(KEY_LIFETIME).unwrap_or(Timestamp::MIN)
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
    fn moving_text_between_fields_changes_the_fingerprint() {
        let draft = |title: &str, description: &str| Draft {
            title: title.to_owned(),
            description: description.to_owned(),
            body: "x".to_owned(),
        };
        let key = IdempotencyKey::parse(b"k").unwrap();
        let fingerprint =
            |draft| IdempotentRequest::new(key.clone(), &draft, Timestamp::UNIX_EPOCH).fingerprint;
        assert_eq!(fingerprint(draft("ab", "c")), fingerprint(draft("ab", "c")));
        assert_ne!(fingerprint(draft("ab", "c")), fingerprint(draft("a", "bc")));
    }
}
