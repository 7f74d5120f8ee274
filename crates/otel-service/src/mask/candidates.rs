//! A fast check that rules out most text: addresses and tokens contain at least one of a few bytes or sequences of
//! bytes. The comparisons of a block have no branches, so the compiler uses vector instructions. Most text is
//! repeated (keys, names, hosts, user agents), so each thread remembers some of the text that it has checked.

use std::cell::RefCell;

/// Length of the shortest address, `a@b.cc`.
const SHORTEST: usize = 6;

const BLOCK: usize = 16;

/// A block and the bytes after it that belong to its last sequence.
const WINDOW: usize = BLOCK + 2;

/// Maximum length of a text that is remembered.
const MAX_REMEMBERED: usize = 256;

/// Number of texts that a thread remembers.
const REMEMBERED: usize = 64;

thread_local! {
    /// Texts without an address or a token.
    static CLEAN: RefCell<[Vec<u8>; REMEMBERED]> = const { RefCell::new([const { Vec::new() }; REMEMBERED]) };
}

/// Masks `text` with `mask` unless it is remembered or has no candidate; returns `None` if there is nothing to mask.
pub(super) fn masked(text: &str, mask: fn(&str) -> Option<String>) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.len() < SHORTEST || is_remembered(bytes) {
        return None;
    }
    search(text, mask)
}

// Not inlined, which shortens the way of remembered text.
#[inline(never)]
fn search(text: &str, mask: fn(&str) -> Option<String>) -> Option<String> {
    let bytes = text.as_bytes();
    let masked = has_candidate(bytes).then(|| mask(text)).flatten();
    if masked.is_none() && bytes.len() <= MAX_REMEMBERED {
        // The thread-local is not accessible while the thread exits.
        let _ = CLEAN.try_with(|clean| {
            let clean = &mut clean.borrow_mut()[slot(bytes)];
            clean.clear();
            clean.extend_from_slice(bytes);
        });
    }
    masked
}

fn is_remembered(text: &[u8]) -> bool {
    let is_remembered = |clean: &RefCell<[Vec<u8>; REMEMBERED]>| clean.borrow()[slot(text)] == text;
    text.len() <= MAX_REMEMBERED && CLEAN.try_with(is_remembered).unwrap_or(false)
}

/// Returns the index of a text that is not empty.
fn slot(text: &[u8]) -> usize {
    (text.len() ^ usize::from(text[text.len() / 2]) ^ usize::from(text[text.len() - 1]) << 2) % REMEMBERED
}

fn has_candidate(text: &[u8]) -> bool {
    let mut windows = text;
    while let Some(window) = windows.first_chunk() {
        if is_candidate(window) {
            return true;
        }
        windows = &windows[BLOCK..];
    }
    // The last window overlaps the one before it, or is padded.
    match text.last_chunk() {
        Some(last) => is_candidate(last) || text[text.len() - 2..].iter().any(|byte| is_single(*byte)),
        None => {
            let mut padded = [0; WINDOW];
            padded[..text.len()].copy_from_slice(text);
            is_candidate(&padded) || padded[BLOCK..].iter().any(|byte| is_single(*byte))
        }
    }
}

/// Whether any sequence of a window is a candidate.
#[inline]
fn is_candidate(bytes: &[u8; WINDOW]) -> bool {
    let mut found = 0;
    for index in 0..BLOCK {
        let [first, second, third] = [bytes[index], bytes[index + 1], bytes[index + 2]];
        found |= u8::from(is_single(first) | is_pair(first, second) | is_scheme(first, second, third));
    }
    found != 0
}

/// Bytes of the forms of an at sign, and of tokens: the `J` of `eyJ` and the `_` of many key prefixes.
#[inline]
fn is_single(byte: u8) -> bool {
    (byte == b'@')
        | (byte == b'%')
        | (byte == b'=')
        | (byte == b'\\')
        | (byte == b'&')
        | (byte == 0xef)
        | (byte == b'J')
        | (byte == b'_')
}

/// Pairs of bytes in other prefixes of keys: `AKIA`, `AIza`, `xoxb-`, `sk-`, `glpat-`, `ya29.`, `PRIVATE`. The last
/// byte of a text is not the first of a pair.
#[inline]
fn is_pair(first: u8, second: u8) -> bool {
    ((first == b'I') & ((second == b'A') | (second == b'z') | (second == b'V')))
        | ((first == b'x') & (second == b'o'))
        | ((first == b'k') & (second == b'-'))
        | ((first == b'l') & (second == b'p'))
        | ((first == b'9') & (second == b'.'))
}

/// The end of `Bearer` or of `Basic`, in any case.
#[inline]
fn is_scheme(first: u8, second: u8, third: u8) -> bool {
    let [first, second, third] = [first | 0x20, second | 0x20, third | 0x20];
    ((first == b'r') & (second == b'e') & (third == b'r'))
        | ((first == b's') & (second == b'i') & (third == b'c'))
}
