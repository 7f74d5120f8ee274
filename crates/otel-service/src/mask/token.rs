//! Masking of tokens by their form: JSON web tokens, credentials after `Bearer` and `Basic`, private keys, and keys with a
//! documented prefix.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem;
use percent_encoding::percent_decode;

/// Replacement of a secret, as in the semantic conventions.
const REDACTED: &str = "REDACTED";

/// Minimum number of characters after `eyJ`, the start of a JSON object in base64.
const MIN_WEB_TOKEN: usize = 8;

/// Minimum length of a random part of a key that is in lower case, and of a number in a key.
const MIN_RANDOM: usize = 20;
const MIN_NUMBER: usize = 10;

/// Prefixes of keys, each with the minimum number of characters that follow.
const PREFIXES: [(&str, usize); 33] = [
    ("sk_", 6),
    ("rk_", 6),
    ("whsec_", 6),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("glptt-", 16),
    ("dckr_pat_", 16),
    ("rubygems_", 24),
    ("lin_api_", 24),
    ("gsk_", 24),
    ("sntrys_", 24),
    ("npm_", 24),
    ("hf_", 24),
    ("dop_v1_", 24),
    ("shpat_", 24),
    ("xoxa-", 10),
    ("xoxb-", 10),
    ("xoxe-", 10),
    ("xoxo-", 10),
    ("xoxp-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("sk-", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ya29.", 20),
    ("eyJ", MIN_WEB_TOKEN),
];

/// Words that follow `Bearer` in prose and challenges.
const NO_CREDENTIALS: [&str; 12] = [
    "auth",
    "authentication",
    "authorization",
    "credential",
    "credentials",
    "error",
    "header",
    "is",
    "realm",
    "scheme",
    "token",
    "tokens",
];

/// Masks the tokens in `text`; returns `None` if there are none.
pub(super) fn mask(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let secret = match bytes[at] {
            b'-' => private_key(bytes, at),
            first if !STARTS[usize::from(first)] || !starts_token(bytes, at) => None,
            b'b' | b'B' => credentials(bytes, at),
            _ => key(bytes, at),
        };
        match secret {
            Some((start, end)) => {
                let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
                out.push_str(&text[copied..start]);
                out.push_str(REDACTED);
                copied = end;
                at = end;
            }
            None => at += 1,
        }
    }
    let mut out = out?;
    out.push_str(&text[copied..]);
    Some(out)
}

/// Whether a key or `Bearer` starts with a byte.
const STARTS: [bool; 256] = {
    let mut starts = [false; 256];
    starts[b'b' as usize] = true;
    starts[b'B' as usize] = true;
    let mut index = 0;
    while index < PREFIXES.len() {
        starts[PREFIXES[index].0.as_bytes()[0] as usize] = true;
        index += 1;
    }
    starts
};

/// Returns the range of the secret in the key or web token at `at`.
fn key(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let text = &bytes[at..];
    let (prefix, min) = PREFIXES
        .iter()
        .find(|(prefix, _)| text.starts_with(prefix.as_bytes()))?;
    let start = at + prefix.len();
    let is_web_token = *prefix == "eyJ";
    let end = end_of(bytes, start, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || is_web_token && byte == b'.'
    });
    let enough = end - start >= *min;
    // Slugs consist of lower-case words between hyphens.
    if prefix.ends_with('-') && bytes[start..end].split(|byte| *byte == b'-').all(is_slug_word) {
        return None;
    }
    // The prefix is kept because it identifies the kind of key; that of a web token does not.
    enough.then_some((if is_web_token { at } else { start }, end))
}

/// Whether a part of a text between hyphens may be a word of a slug: not as long as the random part of a key or the
/// number in one, nor with characters that slugs lack.
fn is_slug_word(word: &[u8]) -> bool {
    let is_number = word.iter().all(u8::is_ascii_digit);
    word.len() < if is_number { MIN_NUMBER } else { MIN_RANDOM }
        && word
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Returns the range of the private key (RFC 7468) whose first line starts at `at`.
fn private_key(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    const MAX_LINE: usize = 64;
    const LABEL: &[u8] = b"PRIVATE KEY-----";
    let text = bytes[at..].strip_prefix(b"-----BEGIN ")?;
    let line = &text[..text.len().min(MAX_LINE)];
    let start = bytes.len() - text.len() + memmem::find(line, LABEL)? + LABEL.len();
    let end = memmem::find(&bytes[start..], b"-----END").map_or(bytes.len(), |length| start + length);
    Some((start, end))
}

/// Whether `word` is the base64 form of a user name and a password.
fn is_basic(word: &[u8]) -> bool {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let decoded = GeneralPurpose::new(&STANDARD, CONFIG).decode(percent_decode(word).collect::<Vec<u8>>());
    decoded.is_ok_and(|decoded| decoded.contains(&b':'))
}

/// Returns the range of the credentials after `Bearer` or `Basic` at `at`.
fn credentials(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let is_at = |scheme: &&&[u8]| {
        let found = bytes.get(at..at + scheme.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(scheme))
    };
    let schemes: [&[u8]; 2] = [b"bearer", b"basic"];
    let scheme = schemes.iter().find(is_at)?;
    let separators: [&[u8]; 12] = [
        b" ",
        b"\t",
        b"%20",
        b"%2520",
        b"%09",
        b"%3A",
        b"%3a",
        b"+",
        b":",
        b"=",
        b"\\t",
        b"\xc2\xa0",
    ];
    let mut start = at + scheme.len();
    while let Some(separator) = separators.iter().find(|one| bytes[start..].starts_with(one)) {
        start += separator.len();
    }
    if start == at + scheme.len() {
        return None;
    }
    let end = end_of(bytes, start, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~+/=*".contains(&byte)
    });
    let word = bytes[start..end].trim_ascii_end();
    if *scheme == b"basic" {
        return is_basic(word).then_some((start, end));
    }
    let word = word
        .strip_suffix(b".")
        .or(word.strip_suffix(b"="))
        .unwrap_or(word);
    let is_prose = word.is_empty() || NO_CREDENTIALS.iter().any(|prose| prose.as_bytes() == word);
    // The local part of a masked address.
    let is_masked = (0..=2).any(|kept| word.get(kept..).is_some_and(|rest| rest.starts_with(b"***")));
    (!is_prose && !is_masked).then_some((start, end))
}

/// Returns the end of the bytes that satisfy `is_part`; percent-encoded bytes are decoded first.
fn end_of(bytes: &[u8], start: usize, is_part: impl Fn(u8) -> bool) -> usize {
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        if is_part(byte) {
            at += 1;
        } else if byte == b'%' && encoded(bytes, at).is_some_and(&is_part) {
            at += 3;
        } else {
            break;
        }
    }
    at
}

/// Returns the value of the percent-encoded byte at `at`.
fn encoded(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = bytes.get(at + 1..at + 3)?;
    if bytes[at] != b'%' || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether a token can start at `at`: not within a word, but directly after a percent-encoded byte or an escaped
/// line feed or tab.
fn starts_token(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else {
        return true;
    };
    if !bytes[before].is_ascii_alphanumeric() {
        return true;
    }
    let is_escape = before > 0 && bytes[before - 1] == b'\\' && matches!(bytes[before], b'n' | b't' | b'r');
    is_escape || before > 1 && encoded(bytes, before - 2).is_some()
}
