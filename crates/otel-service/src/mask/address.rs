//! Masking of e-mail addresses.
//!
//! The grammar is wider than that of registration forms: everything that may be an address is masked, even if text
//! before it is lost that only looks like part of the local part.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use memchr::memchr;

/// Ranges of non-ASCII symbols that delimit an address: an arrow, a dash or a full-width comma before an
/// address is punctuation, although RFC 6531 allows it in a local part. The ranges contain no letters or
/// digits.
const SYMBOLS: [(char, char); 17] = [
    ('\u{80}', '\u{a9}'),
    ('\u{ab}', '\u{b1}'),
    ('\u{b4}', '\u{b4}'),
    ('\u{b6}', '\u{b8}'),
    ('\u{bb}', '\u{bb}'),
    ('\u{bf}', '\u{bf}'),
    ('\u{d7}', '\u{d7}'),
    ('\u{f7}', '\u{f7}'),
    ('\u{2000}', '\u{206f}'),
    ('\u{2190}', '\u{245f}'),
    ('\u{2500}', '\u{2775}'),
    ('\u{3000}', '\u{3004}'),
    ('\u{3008}', '\u{3020}'),
    ('\u{ff00}', '\u{ff0f}'),
    ('\u{ff1a}', '\u{ff20}'),
    ('\u{ff3b}', '\u{ff40}'),
    ('\u{1f300}', '\u{1faff}'),
];

/// ASCII symbols that RFC 5321 allows in a local part without quotes.
const LOCAL_SYMBOLS: &str = "!#$%&'*+-./=?^_`{|}~";

/// Replacement of the masked characters.
const STARS: &str = "***";

/// Number of characters at the start of a local part that are kept.
const KEPT: usize = 2;

/// Maximum length of an address in characters (RFC 5321, rounded).
const MAX_ADDRESS: usize = 256;

/// Maximum number of at signs after an at sign that are searched for the end of its address.
const MAX_SIGNS: usize = 8;

/// Brackets that may be next to an at sign, as in `alice[@]example.com`.
const BRACKETS: [char; 6] = ['(', ')', '<', '>', '[', ']'];

/// Separators of an IP address, as they are and percent-encoded, and their plain forms.
const SEPARATORS: [(&str, &str); 6] = [
    (".", "."),
    (":", ":"),
    ("%2E", "."),
    ("%2e", "."),
    ("%3A", ":"),
    ("%3a", ":"),
];

/// Maximum number of backslashes before an encoded at sign.
const MAX_ESCAPES: usize = 8;

/// Maximum number of bytes before an at sign that are searched for the start of a quoted local part, or for the name of
/// a worker.
const MAX_LOCAL: usize = 1_024;

/// Masks the addresses in `text`; returns `None` if there are none.
pub(super) fn mask(text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let mut copied = 0;
    // End of the previous address; the next one starts after it.
    let mut from = 0;
    let mut searched = 0;
    let mut quote = memchr(b'"', text.as_bytes());
    // Start of a local part that contains at signs, and the number of its bytes to keep.
    let mut started = None;
    while let Some(sign) = next_sign(text, searched) {
        searched = sign.end;
        if quote.is_some_and(|quote| quote < sign.end) {
            quote = memchr(b'"', &text.as_bytes()[sign.end..]).map(|at| sign.end + at);
        }
        let is_sign = |c| matches!(c, '@' | '\u{ff20}' | '\u{fe6b}');
        let local = |is_ignored: &dyn Fn(char) -> bool| Local {
            text: without(&text[..sign.start], from, is_ignored),
            from,
        };
        let bracketed = || local(&|c| is_sign(c) || BRACKETS.contains(&c));
        let domain = &text[sign.end..];
        if is_within_local(&text[sign.clone()], domain)
            || quote.is_some_and(|quote| is_within_quotes(text, from, &sign, quote))
        {
            continue;
        }
        if is_joined(&text[sign.clone()]) && continues_to_address(domain) {
            started = started.or_else(|| bracketed().find());
            continue;
        }
        let started = started.take();
        // The value of a parameter may start with 40.
        let is_ambiguous = text[sign.clone()].starts_with('=');
        let (local, length) = match host(domain) {
            Some(length) => (bracketed(), length),
            // A name is not skipped, because it may be the local part of a further address.
            None => (local(&is_sign), 0),
        };
        let is_named = || is_name(domain) && !is_ambiguous && local.is_of_user();
        // Both parts were masked earlier.
        let was_named = || {
            let mut start = domain.char_indices().take(KEPT + 1);
            start.any(|(at, _)| domain[at..].starts_with(STARS))
                && local
                    .find()
                    .is_some_and(|(start, _)| is_masked(&local.text[start..]))
        };
        if length == 0 && !is_named() && !was_named() {
            continue;
        }
        let end = sign.end + length;
        let Some((start, kept)) = started.or_else(|| local.find()) else {
            continue;
        };
        (from, searched) = (end, end);
        if is_masked(&local.text[start..]) {
            continue;
        }
        let out = out.get_or_insert_with(|| String::with_capacity(text.len() + STARS.len()));
        out.push_str(&text[copied..start + kept]);
        out.push_str(STARS);
        out.push_str(&text[local.text.len()..end]);
        copied = end;
    }
    let mut out = out?;
    out.push_str(&text[copied..]);
    Some(out)
}

/// Whether a local part has nothing to mask, as after an earlier masking.
fn is_masked(local: &str) -> bool {
    local
        .strip_suffix(STARS)
        .is_some_and(|kept| kept.chars().nth(KEPT).is_none())
}

/// Finds the next at sign at or after `from`: plain, full-width, small, or encoded.
fn next_sign(text: &str, from: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest
            .iter()
            .position(|byte| matches!(byte, b'@' | b'%' | b'=' | b'\\' | b'&' | 0xef))?;
        if let Some(length) = sign_length(&text[at..]) {
            return Some(at..at + length);
        }
        at += 1;
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
}

/// Returns the length of the at sign at the start of `text`.
fn sign_length(text: &str) -> Option<usize> {
    const LITERAL: [&str; 4] = ["@", "\u{ff20}", "\u{fe6b}", "&commat;"];
    if let Some(sign) = LITERAL.iter().find(|sign| text.starts_with(**sign)) {
        return Some(sign.len());
    }
    let length_before = |rest: &str| text.len() - rest.len();
    if text.starts_with('%') {
        return percent_encoded(text).map(length_before);
    }
    // `=40` is more often a number than quoted-printable text, so a letter must follow.
    if let Some(rest) = text.strip_prefix("=40") {
        return rest.starts_with(char::is_alphabetic).then_some(3);
    }
    if text.starts_with('\\') {
        // String literals may be nested.
        let depth = text
            .bytes()
            .take(MAX_ESCAPES)
            .take_while(|byte| *byte == b'\\')
            .count();
        let code = &text[depth..];
        if let Some(rest) = code.strip_prefix("u{").or(code.strip_prefix("x{")) {
            return rest
                .trim_start_matches('0')
                .strip_prefix("40}")
                .map(length_before);
        }
        let codes = ["x40", "u0040", "U00000040", "100"];
        return codes
            .iter()
            .find_map(|hex| code.strip_prefix(hex))
            .map(length_before);
    }
    let reference = text
        .strip_prefix('&')?
        .trim_start_matches("amp;")
        .strip_prefix('#')?;
    let is_hexadecimal = reference.starts_with(['x', 'X']);
    let digits = reference.trim_start_matches(['x', 'X', '0']);
    let after = digits.strip_prefix(if is_hexadecimal { "40" } else { "64" });
    // Browsers accept a reference without its end.
    let after = after?;
    let is_longer =
        after.starts_with(|c: char| c.is_ascii_hexdigit() && (c.is_ascii_digit() || is_hexadecimal));
    (!is_longer).then(|| length_before(after.strip_prefix(';').unwrap_or(after)))
}

/// Returns the text after the percent-encoded at sign at the start of `text`, encoded once or several times.
fn percent_encoded(text: &str) -> Option<&str> {
    const SIGNS: [&[&str]; 3] = [&["40"], &["EF", "BC", "A0"], &["EF", "B9", "AB"]];
    let after = |sign: &&[&str]| {
        sign.iter().try_fold(text, |text, code| {
            let digits = text.strip_prefix('%')?.trim_start_matches("25");
            let found = digits.get(..code.len())?;
            found.eq_ignore_ascii_case(code).then(|| &digits[code.len()..])
        })
    };
    SIGNS.iter().find_map(after)
}

/// Whether an encoded at sign is part of a local part, in which `%40` and `=40` have no special meaning: the local
/// part continues up to another at sign that is encoded less often, or to any after `=40`, because a query may contain
/// `email=40a%40example.com`.
fn is_within_local(sign: &str, rest: &str) -> bool {
    if !sign.starts_with(['%', '=']) {
        return false;
    }
    let rest = rest
        .char_indices()
        .nth(MAX_ADDRESS)
        .map_or(rest, |(end, _)| &rest[..end]);
    let mut searched = 0;
    while let Some(next) = next_sign(rest, searched) {
        // Symbols directly before the at sign are masked with the local part.
        let gap = rest[searched..next.start].trim_end_matches(is_symbol);
        if !gap.chars().all(is_local) {
            return false;
        }
        let is_outer = sign.starts_with('=') || next.len() < sign.len();
        let domain = &rest[next.end..];
        // In a password, the at sign before the host of a URL may be encoded.
        let is_named = || sign.starts_with('%') && rest[next.clone()].starts_with('@') && is_name(domain);
        if is_outer && (host(domain).is_some() || is_named()) {
            return true;
        }
        // A local part that has symbols at its end has no others, and only an encoded at sign is part of one.
        if gap.len() < next.start - searched || !rest[next.clone()].starts_with(['%', '=']) {
            return false;
        }
        searched = next.end;
    }
    false
}

/// Whether an at sign is within a quoted local part; `quote` is the next quote.
fn is_within_quotes(text: &str, from: usize, sign: &Range<usize>, quote: usize) -> bool {
    let quotes = text[quote..].match_indices('"').map(|(at, _)| quote + at);
    for closing in quotes.take_while(|at| at - sign.end < MAX_LOCAL) {
        let after = &text[closing + 1..];
        if sign_length(after).is_some_and(|length| host(&after[length..]).is_some()) {
            let text = &text[..=closing];
            return Local { text, from }
                .quoted()
                .is_some_and(|start| start < sign.start);
        }
        if !text[..closing].ends_with('\\') {
            return false;
        }
    }
    false
}

/// Whether the text after an at sign is part of the local part of another at sign, as in `alice@bob@example.com`. Symbols
/// that separate parameters, alternatives and path segments are not.
fn continues_to_address(rest: &str) -> bool {
    let is_between = |c| is_local(c) && !"/&=?|*".contains(c);
    let mut at = 0;
    for _ in 0..MAX_SIGNS {
        let Some(sign) = next_sign(rest, at) else {
            return false;
        };
        if !rest[at..sign.start].chars().all(is_between) || !is_joined(&rest[sign.clone()]) {
            return false;
        }
        at = sign.end;
        if host(&rest[at..]).is_some() {
            return true;
        }
    }
    false
}

/// Whether an at sign may be within a local part with several at signs.
fn is_joined(sign: &str) -> bool {
    sign.starts_with(['@', '\u{ff20}', '\u{fe6b}', '%'])
}

/// Returns `text` without ignored characters at its end, down to `from`: `alice@@example.com` is masked like an address.
fn without<'a>(text: &'a str, from: usize, is_ignored: &dyn Fn(char) -> bool) -> &'a str {
    &text[..from.max(text.trim_end_matches(is_ignored).len())]
}

/// The text before an at sign.
#[derive(Clone, Copy)]
struct Local<'a> {
    text: &'a str,
    /// End of the previous address in `text`.
    from: usize,
}

impl<'a> Local<'a> {
    /// Returns the start of the local part, and the number of its bytes to keep.
    fn find(self) -> Option<(usize, usize)> {
        let quoted = self.quoted();
        let before = match quoted {
            Some(start) => Local {
                text: &self.text[..start],
                ..self
            },
            None => self,
        };
        let mut unquoted = before.run(is_local);
        if unquoted.is_empty() && quoted.is_none() {
            unquoted = before.run(|c| is_local(c) || is_symbol(c));
        }
        let start = before.text.len() - unquoted.len();
        let mut kept = self.text[start..].char_indices().skip(KEPT);
        let kept = kept.next().map_or(0, |(index, _)| index);
        // Nothing of a quoted part and of a password is kept.
        let kept = if unquoted.chars().nth(KEPT - 1).is_some() && !before.is_password(start) {
            kept
        } else {
            0
        };
        (start < self.text.len()).then_some((start, kept))
    }

    /// Whether the text from `start` is the password of a URL, as in `redis://user:password@host`.
    fn is_password(self, start: usize) -> bool {
        let free = &self.text[self.from..start];
        let user = &free[free.trim_end_matches(|c| is_local(c) || c == ':').len()..];
        free.ends_with(':') && user.contains("://")
    }

    /// Returns the start of a quoted local part (`"john doe"`). Quotes within it are escaped; in escaped text,
    /// they have more backslashes than the outer quotes.
    fn quoted(self) -> Option<usize> {
        let searched = self.free();
        let inner = searched.strip_suffix('"')?;
        let escapes = |before: &str| before.len() - before.trim_end_matches('\\').len();
        let closing = escapes(inner);
        // Plain text, text in a string literal, and text in a literal within a literal; backslashes of the content
        // may precede the quotes.
        let (level, period) = match closing % 4 {
            1 => (1, 4),
            3 => (3, 4),
            _ => (0, 2),
        };
        let inner = &inner[..inner.len() - closing];
        let oldest = inner.len().saturating_sub(MAX_LOCAL);
        let mut quotes = inner.rmatch_indices('"').take_while(|(at, _)| *at >= oldest);
        let (at, _) = quotes.find(|(at, _)| escapes(&inner[..*at]) % period == level)?;
        Some(self.from + at - level)
    }

    /// Whether a word precedes the at sign that is not the name of a Celery worker, such as `celery` or `worker-1`.
    fn is_of_user(self) -> bool {
        let near = self.text.len().saturating_sub(MAX_LOCAL).max(self.from);
        let near = (near..)
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or_default();
        let near = &self.text[near..];
        let is_word = |c: char| c.is_alphanumeric() || is_invisible(c) || "._+-*".contains(c);
        let word = &near[near.trim_end_matches(is_word).len()..];
        let name = word.trim_end_matches(|c: char| c.is_ascii_digit() || "-_".contains(c));
        let is_word = word.ends_with(STARS) || word.contains(char::is_alphanumeric);
        is_word && !["celery", "worker"].contains(&name)
    }

    fn free(self) -> &'a str {
        &self.text[self.from..]
    }

    /// Returns the longest suffix of characters that satisfy `predicate`.
    fn run(self, predicate: fn(char) -> bool) -> &'a str {
        let free = self.free();
        &free[free.trim_end_matches(predicate).len()..]
    }
}

/// Whether a character is part of a local part.
fn is_local(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || LOCAL_SYMBOLS.contains(c)
    } else {
        is_invisible(c) || !is_symbol(c)
    }
}

/// Whether a character has no width and may hide an address from a search.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}')
}

fn is_symbol(c: char) -> bool {
    SYMBOLS.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Returns the length of the start of `domain` that identifies a domain: a word, a dot and two more units, an IP
/// address, or `localhost`. Brackets may precede it.
fn host(domain: &str) -> Option<usize> {
    const LOCALHOST: &str = "localhost";
    let named = domain.trim_start_matches(BRACKETS);
    let localhost = || {
        let start = named.get(..LOCALHOST.len())?;
        start.eq_ignore_ascii_case(LOCALHOST).then_some(LOCALHOST.len())
    };
    let bracketed = || {
        let length = dotted(named)
            .or_else(|| bare_ip_address(named))
            .or_else(localhost)?;
        Some(domain.len() - named.len() + length)
    };
    literal(domain).or_else(bracketed)
}

/// Returns the length of a word, a dot and two more units.
fn dotted(domain: &str) -> Option<usize> {
    let mut at = match unit(domain)? {
        (Unit::Word, length) => length,
        _ => return None,
    };
    for _ in 0..MAX_ADDRESS {
        let (kind, length) = unit(&domain[at..])?;
        at += length;
        if kind == Unit::Dot {
            let top = (0..2).try_fold(at, |at, _| match unit(&domain[at..])? {
                (Unit::Dot, _) => None,
                (_, length) => Some(at + length),
            });
            if top.is_some() {
                return top;
            }
        }
    }
    None
}

/// Returns the length of an IP address without brackets.
fn bare_ip_address(domain: &str) -> Option<usize> {
    let mut part = &domain[..address_length(domain, |c| c.is_ascii_hexdigit())];
    while let Some(shorter) = SEPARATORS.iter().find_map(|(text, _)| part.strip_suffix(text)) {
        part = shorter;
    }
    let mut decoded = Cow::Borrowed(part);
    for (encoded, plain) in SEPARATORS {
        if encoded != plain && decoded.contains(encoded) {
            decoded = Cow::Owned(decoded.replace(encoded, plain));
        }
    }
    let is_address = decoded.parse::<Ipv4Addr>().is_ok() || decoded.parse::<Ipv6Addr>().is_ok();
    is_address.then_some(part.len())
}

/// Returns the length of the start of `text` that consists of characters and [`SEPARATORS`], up to a limit.
fn address_length(text: &str, is_part: fn(char) -> bool) -> usize {
    let mut end = 0;
    while end < MAX_ADDRESS {
        let separator = SEPARATORS
            .iter()
            .find(|(separator, _)| text[end..].starts_with(separator));
        end += match separator {
            Some((separator, _)) => separator.len(),
            None if text[end..].starts_with(is_part) => 1,
            None => break,
        };
    }
    end
}

/// Whether `domain` starts with a letter and another unit of a name.
fn is_name(domain: &str) -> bool {
    let mut rest = domain.chars();
    rest.next().is_some_and(char::is_alphabetic)
        && unit(rest.as_str()).is_some_and(|(kind, _)| kind != Unit::Dot)
}

/// Returns the length of an IP address in brackets (`[192.0.2.1]`), which may be percent-encoded.
fn literal(domain: &str) -> Option<usize> {
    let inner = ["[", "%5B", "%5b"]
        .iter()
        .find_map(|open| domain.strip_prefix(open))?;
    let end = address_length(inner, |c| c.is_ascii_alphanumeric());
    let close = ["]", "%5D", "%5d"]
        .iter()
        .find(|close| inner[end..].starts_with(**close))?;
    (end > 0).then(|| domain.len() - inner.len() + end + close.len())
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Unit {
    /// A letter, a digit or `_`, or a percent-encoded byte of one.
    Word,
    Dash,
    Dot,
}

/// Parses the unit at the start of `text`; returns its kind and length.
fn unit(text: &str) -> Option<(Unit, usize)> {
    let c = text.chars().next()?;
    match c {
        '.' => Some((Unit::Dot, 1)),
        '-' => Some((Unit::Dash, 1)),
        // The full stops of internationalised domain names (RFC 3490).
        '\u{3002}' | '\u{ff0e}' | '\u{ff61}' => Some((Unit::Dot, c.len_utf8())),
        '%' => {
            let digits = text.get(1..3)?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            let byte = u8::from_str_radix(digits, 16).ok()?;
            let kind = match byte {
                b'.' => Unit::Dot,
                b'-' => Unit::Dash,
                b'_' | 0x80.. => Unit::Word,
                byte if byte.is_ascii_alphanumeric() => Unit::Word,
                _ => return None,
            };
            Some((kind, 3))
        }
        '_' | '\u{a1}'.. => Some((Unit::Word, c.len_utf8())),
        c if c.is_ascii_alphanumeric() => Some((Unit::Word, 1)),
        _ => None,
    }
}
