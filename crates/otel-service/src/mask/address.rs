//! Parsing of e-mail addresses for [`super::mask`].

use std::ops::Range;

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

/// ASCII symbols that RFC 5322 allows in a local part besides `._%+-`, but that often precede an address. `*`
/// has its own rule.
const DELIMITERS: &str = "!#$&'/=?^`{|}~";

/// Finds the next at sign (`@`, `%40`, `%2540`) at or after `from`.
pub(super) fn next_sign(text: &str, from: usize) -> Option<Range<usize>> {
    let mut searched = from;
    loop {
        let at = searched + text[searched..].find(['@', '%'])?;
        searched = at + 1;
        if text[at..].starts_with('@') {
            return Some(at..at + 1);
        }
        if let Some(length) = encoded_sign(&text[at..]) {
            return Some(at..at + length);
        }
    }
}

/// Returns the length of an at sign at the start of `text` that is percent-encoded once or several times.
fn encoded_sign(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('%')?;
    let depth = digits.len() - digits.trim_start_matches("25").len();
    digits[depth..].starts_with("40").then_some(1 + depth + 2)
}

/// The text before an at sign.
#[derive(Clone, Copy)]
pub(super) struct Local<'a> {
    pub(super) text: &'a str,
    /// End of the previous address in `text`.
    pub(super) from: usize,
}

impl<'a> Local<'a> {
    /// Matches a quoted local part (`"john doe"`); nothing is kept.
    pub(super) fn quoted(self) -> Option<(usize, usize)> {
        let inner = self.free().strip_suffix('"')?;
        Some((self.from + inner.rfind('"')?, 0))
    }

    /// Matches a local part of three or more characters; the first two are kept.
    pub(super) fn long(self) -> Option<(usize, usize)> {
        let local = self.run(is_word);
        let third = local.char_indices().nth(2)?;
        Some((self.text.len() - local.len(), third.0))
    }

    /// Matches a local part of one or two characters, or of delimiters only; nothing is kept.
    pub(super) fn short(self) -> Option<(usize, usize)> {
        let run = self.run(is_word);
        let start = match run.char_indices().rev().take(2).last() {
            Some((start, _)) => self.text.len() - run.len() + start,
            None => self.text.len() - self.run(is_symbol).len(),
        };
        (start < self.text.len()).then_some((start, 0))
    }

    /// Matches asterisks, as in an address that is already masked; three asterisks replace them.
    pub(super) fn stars(self) -> Option<(usize, usize)> {
        let stars = self.run(|c| c == '*');
        (!stars.is_empty()).then(|| (self.text.len() - stars.len(), 0))
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

/// Whether a character is part of a local part rather than a delimiter.
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "._%+-".contains(c)
    } else {
        !is_non_ascii_symbol(c)
    }
}

fn is_symbol(c: char) -> bool {
    if c.is_ascii() {
        DELIMITERS.contains(c)
    } else {
        is_non_ascii_symbol(c)
    }
}

fn is_non_ascii_symbol(c: char) -> bool {
    SYMBOLS.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Returns the end of the prefix of `text[start..]` that identifies a domain, or `None` if there is no
/// domain.
///
/// The prefix is a word, a dot and two more units, an IP address in brackets, or `localhost`.
pub(super) fn domain_end(text: &str, start: usize) -> Option<usize> {
    let domain = &text[start..];
    if let Some(end) =
        literal(domain).or_else(|| domain.starts_with("localhost").then_some("localhost".len()))
    {
        return Some(start + end);
    }
    let mut at = match unit(domain)? {
        (Unit::Word, length) => length,
        _ => return None,
    };
    loop {
        let (kind, length) = unit(&domain[at..])?;
        at += length;
        if kind == Unit::Dot {
            let top = (0..2).try_fold(at, |at, _| match unit(&domain[at..])? {
                (Unit::Dot, _) => None,
                (_, length) => Some(at + length),
            });
            if let Some(end) = top {
                return Some(start + end);
            }
        }
    }
}

/// Returns the length of an IP address in brackets (`[192.0.2.1]`), which may be percent-encoded.
fn literal(domain: &str) -> Option<usize> {
    let inner = ["[", "%5B", "%5b"]
        .iter()
        .find_map(|open| domain.strip_prefix(open))?;
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':'))?;
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
