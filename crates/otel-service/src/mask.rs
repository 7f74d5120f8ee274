//! E-mail masking: `alice@example.com` leaves the process as `al***@example.com`. Text without a sign costs a search
//! for two bytes at once. The collector's configuration (`config/otel-config.yaml`) has rules for the usual of these
//! addresses, and a test compares.

mod address;

use std::borrow::Cow;

use address::{Local, domain_end, next_sign};
use memchr::memchr2;

/// Masks every e-mail address in `text`: the first two characters of the local part stay, or none when it has only one
/// or two, or is quoted. The domain stays. Text without an address is returned as it is.
///
/// An address is letters, digits and `._%+-` (and letters beyond ASCII), `@`, and a domain with a dot, an address in
/// brackets, or `localhost`. Other symbols that RFC 5322 allows in a local part (`o'brien`, `a/b`) end it: what is before
/// them stays, because they are where addresses in URLs and in text begin. `%40`, and `%2540`, count as `@`, for query
/// strings. Other encodings (`&#64;`, `\u0040`, base64) are not looked into.
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

/// What a rule makes of the text before a sign: where the local part begins, and how much of it stays.
type Rule = fn(Local<'_>) -> Option<(usize, usize)>;

/// Applied one after the other to the whole text.
const RULES: [Rule; 4] = [
    |local| local.quoted(),
    |local| local.long(),
    |local| local.short(),
    |local| local.stars(),
];

/// `text` with every address masked that `rule` is for; `None` when there is none.
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
