//! Validated e-mail addresses.
//!
//! The rules are those of marshmallow's `Email` field, which the reference implementation uses: the local
//! part is a sequence of atoms separated by dots, or a quoted string; the domain has two or more labels, or
//! is an IPv4 literal or `localhost`. Both parts may contain non-ASCII letters.

use std::net::Ipv4Addr;

/// Characters that an unquoted local part may contain in addition to letters, digits and `_`.
const ATOM_SYMBOLS: &str = "-!#$%&'*+/=?^`{}|~";

/// A valid address, as typed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// Reason a string is not a valid address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// The text is not an address.
    #[error("not a valid e-mail address")]
    Malformed,
    /// The address has more than [`Email::MAX_CHARS`] characters.
    #[error("an e-mail address of more than {} characters", Email::MAX_CHARS)]
    TooLong,
}

impl Email {
    /// Maximum length of an address in characters, which is the size of the database column.
    pub const MAX_CHARS: usize = 255;

    /// Parses an address.
    ///
    /// # Errors
    /// Returns [`InvalidEmail`] when `text` is not an address or is too long.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail::Malformed)?;
        if !is_local_part(local) || !is_domain(domain) {
            return Err(InvalidEmail::Malformed);
        }
        if text.chars().count() > Self::MAX_CHARS {
            return Err(InvalidEmail::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the address as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address in lower case, for comparisons that ignore case.
    ///
    /// Each character becomes a single character, as in PostgreSQL's `lower`: a capital I with a dot becomes `i`,
    /// and a final sigma remains a sigma.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0
            .chars()
            .map(|c| c.to_lowercase().next().unwrap_or(c))
            .collect()
    }
}

/// Hides the address, which is personal data; [`Email::as_str`] returns it.
impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Email(***)")
    }
}

fn is_local_part(local: &str) -> bool {
    let atoms = local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char));
    atoms || is_quoted(local)
}

fn is_atom_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || ATOM_SYMBOLS.contains(c)
}

/// Whether `local` is a quoted string (RFC 822): ASCII characters except NUL, tab, line breaks, space, `"`
/// and `\`. A backslash escapes any ASCII character except NUL and line breaks.
fn is_quoted(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let fits = match c {
            '\\' => chars.next().is_some_and(
                |escaped| matches!(escaped, '\u{1}'..='\u{9}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{7f}'),
            ),
            '"' => false,
            _ => matches!(c, '\u{1}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '!'..='\u{7f}'),
        };
        if !fits {
            return false;
        }
    }
    local.len() >= 2
}

fn is_domain(domain: &str) -> bool {
    domain == "localhost" || is_address_literal(domain) || is_host_name(domain)
}

fn is_address_literal(domain: &str) -> bool {
    domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<Ipv4Addr>().is_ok())
}

fn is_host_name(domain: &str) -> bool {
    let mut labels = domain.split('.').rev();
    // The last label may have hyphens anywhere and any length of at least two, as in marshmallow.
    let top_level = labels
        .next()
        .is_some_and(|top| top.chars().count() >= 2 && top.chars().all(is_label_char));
    let mut labels = labels.peekable();
    top_level && labels.peek().is_some() && labels.all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.chars().count())
        && label.chars().all(is_label_char)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a label may contain `c`: ASCII letters, digits, the hyphen, and the Basic Multilingual Plane from
/// U+00A1, which marshmallow accepts as letters of other scripts.
fn is_label_char(c: char) -> bool {
    c == '-' || c.is_ascii_alphanumeric() || matches!(c, '\u{a1}'..='\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_marshmallow() {
        let cases: Vec<(String, bool)> =
            serde_json::from_str(include_str!("../../tests/vectors/email.json")).unwrap();
        assert!(cases.len() > 50);
        for (address, valid) in cases {
            let malformed = Email::parse(&address) == Err(InvalidEmail::Malformed);
            assert_eq!(malformed, !valid, "{address:?}");
        }
    }

    #[test]
    fn an_address_longer_than_the_column_is_rejected() {
        let fits = format!("{}@example.com", "x".repeat(243));
        assert!(Email::parse(&fits).is_ok());
        assert_eq!(Email::parse(&format!("x{fits}")), Err(InvalidEmail::TooLong));
    }

    #[test]
    fn folding_maps_each_character_to_a_single_character() {
        let folded = |address| Email::parse(address).unwrap().folded();
        assert_eq!(folded("M\u{130}\u{212a}ΣΑΣ@Example.COM"), "mikσασ@example.com");
        assert_eq!(folded("Straße@example.com"), "straße@example.com");
    }

    /// Returns pseudo-random addresses of every kind that the grammar allows.
    fn generated() -> Vec<String> {
        const ATOM: &[&str] = &[
            "a", "Z", "7", "_", "-", "!", "#", "$", "%", "&", "'", "*", "+", "/", "=", "?", "^", "`", "{",
            "}", "|", "~", ".", "ö", "木", "%40", "=40", "40", "***", "bc.de",
        ];
        const QUOTED: &[&str] = &[
            "a", "@", "(", "/", "\\\"", "\\\\", "\\ ", "%40", "\u{1}", "<", "@x.",
        ];
        const DOMAINS: &[&str] = &[
            "x.example",
            "localhost",
            "[192.0.2.1]",
            "2x.png",
            "a-b.c1.de",
            "ü.рф",
            "例.テスト",
            "a.--",
            "→.→→",
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % limit as u64) as usize
        };
        let mut all = Vec::new();
        for _ in 0..40_000 {
            let is_quoted = below(4) == 0;
            let parts = if is_quoted { QUOTED } else { ATOM };
            let mut local: String = (0..1 + below(8)).map(|_| parts[below(parts.len())]).collect();
            if is_quoted {
                local = format!("\"{local}\"");
            }
            let address = format!("{local}@{}", DOMAINS[below(DOMAINS.len())]);
            if Email::parse(&address).is_ok() {
                all.push(address);
            }
        }
        assert!(all.len() > 20_000, "{}", all.len());
        all
    }

    #[test]
    fn telemetry_masks_every_address_that_is_accepted() {
        for address in generated() {
            let (local, domain) = address.rsplit_once('@').unwrap();
            for (before, after) in [("", ""), ("Write to ", " today"), ("<", ">")] {
                let masked = telemetry::mask(&format!("{before}{address}{after}")).into_owned();
                let kept = masked.strip_prefix(before).and_then(|rest| {
                    let masked = rest.strip_suffix(&format!("@{domain}{after}"))?;
                    masked.strip_suffix("***")
                });
                let is_short = kept.is_some_and(|kept| kept.chars().count() <= 2 && local.starts_with(kept));
                assert!(is_short, "{address:?}: {masked:?}");
            }
        }
    }

    #[test]
    fn debug_output_hides_the_address() {
        let email = Email::parse("alice@example.com").unwrap();
        assert_eq!(format!("{email:?}"), "Email(***)");
    }
}
