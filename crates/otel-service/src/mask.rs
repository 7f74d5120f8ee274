//! E-mail masking: `alice@example.com` leaves the process as `al***@example.com`. Text without an at sign
//! costs one search for two bytes. The configuration of the collector (`config/otel-config.yaml`) contains
//! rules for the common forms of addresses; a test compares them with this module.

mod address;

use std::borrow::Cow;

use address::{Local, domain_end, next_sign};
use memchr::memchr2;

/// Masks every e-mail address in `text`.
///
/// Keeps the first two characters of the local part, or none if it has at most two or is quoted, and keeps
/// the domain. Text without an address is returned unchanged.
///
/// An address is a local part (letters, including non-ASCII ones, digits and `._%+-`), `@`, and a domain with
/// a dot, an IP address in brackets, or `localhost`. Other symbols that RFC 5322 allows in a local part
/// (`o'brien`, `a/b`) delimit it, and the text before them is kept, because in URLs and prose they often
/// precede an address. `%40` and `%2540` count as `@`, for query strings. Other encodings (`&#64;`, `\u0040`,
/// base64) are not recognised.
///
/// ```
/// assert_eq!(otel_service::mask("from alice@example.com"), "from al***@example.com");
/// assert_eq!(otel_service::mask("al@example.com"), "***@example.com");
/// ```
pub fn mask(text: &str) -> Cow<'_, str> {
    if memchr2(b'@', b'%', text.as_bytes()).is_none() || next_sign(text, 0).is_none() {
        return Cow::Borrowed(text);
    }
    let mut masked = Cow::Borrowed(text);
    for rule in RULES {
        if let Some(changed) = apply(rule, &masked) {
            masked = Cow::Owned(changed);
        }
    }
    masked
}

/// Function that maps the text before an at sign to the start of the local part and the number of its bytes
/// to keep.
type Rule = fn(Local<'_>) -> Option<(usize, usize)>;

/// Rules, each applied to the whole text in this order.
const RULES: [Rule; 4] = [
    |local| local.quoted(),
    |local| local.long(),
    |local| local.short(),
    |local| local.stars(),
];

/// Masks every address in `text` that `rule` matches; returns `None` if it matches none.
fn apply(rule: Rule, text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let mut copied = 0;
    let mut searched = 0;
    while let Some(sign) = next_sign(text, searched) {
        searched = sign.end;
        let Some(end) = domain_end(text, sign.end) else {
            continue;
        };
        let Some((start, kept)) = rule(Local {
            text: &text[..sign.start],
            from: copied,
        }) else {
            continue;
        };
        let out = out.get_or_insert_with(|| String::with_capacity(text.len() + 3));
        out.push_str(&text[copied..start + kept]);
        out.push_str("***");
        out.push_str(&text[sign.start..end]);
        copied = end;
        searched = end;
    }
    let mut out = out?;
    out.push_str(&text[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests;
