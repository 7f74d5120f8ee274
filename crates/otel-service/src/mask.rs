//! Masking of e-mail addresses and tokens, recognised by their form, in any text that leaves the process. Text
//! without either costs one pass over its bytes. The configuration of the collector (`config/otel-config.yaml`) contains
//! rules for the common forms of addresses; a test compares them with this module.

mod address;
mod candidates;
mod token;

use std::borrow::Cow;

/// Masks every e-mail address and every token in `text`. Text without either is returned unchanged.
///
/// An address (`alice@example.com`) keeps its domain and the first two characters of its local part; a local part
/// that is quoted or has at most two characters is masked completely. A local part may contain everything that
/// RFC 5321 and RFC 6531 allow, so text directly before an address can count as part of it
/// (`to=alice@example.com`), and so can another at sign (`bob@alice@example.com`). A domain is an IP address or a name,
/// with or without a dot; the names of Celery's workers (`celery@host`, `worker-1@host`) are not addresses. The at sign
/// may be full-width, next to brackets, or encoded for URLs, HTML, string literals or quoted-printable text. Other encodings, such as base64, are not recognised.
///
/// Tokens are JSON web tokens, the credentials after `Bearer`, and keys with a prefix that their issuer
/// documents (`sk_`, `whsec_`, `ghp_`, `AKIA` and others). `REDACTED` replaces them; prefixes remain.
///
/// ```
/// assert_eq!(otel_service::mask("from alice@example.com"), "from al***@example.com");
/// assert_eq!(otel_service::mask("al@example.com"), "***@example.com");
/// assert_eq!(otel_service::mask("Bearer xvy2a83kd8"), "Bearer REDACTED");
/// ```
pub fn mask(text: &str) -> Cow<'_, str> {
    let masked = candidates::masked(text, |text| match token::mask(text) {
        None => address::mask(text),
        Some(masked) => Some(address::mask(&masked).unwrap_or(masked)),
    });
    masked.map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests;
