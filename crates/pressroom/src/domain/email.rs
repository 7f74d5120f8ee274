//! E-mail addresses that cannot be built invalid.
//!
//! Valid is what the reference's validator accepts (marshmallow's `Email` field, which follows
//! Django's): a dotted local part or a quoted string; a domain of two labels or more, an IPv4
//! literal, or `localhost`. Both parts may hold letters beyond ASCII.

use std::net::Ipv4Addr;

/// Characters beside letters, digits and `_` that a local part may hold unquoted.
const ATOM_SYMBOLS: &str = "-!#$%&'*+/=?^`{}|~";

/// A valid address, spelled as it was typed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// It is no address.
    #[error("not a valid e-mail address")]
    Malformed,
    /// It is an address of more than [`Email::MAX_CHARS`] characters.
    #[error("an e-mail address of more than {} characters", Email::MAX_CHARS)]
    TooLong,
}

impl Email {
    /// The longest address that a column holds.
    pub const MAX_CHARS: usize = 255;

    /// # Errors
    /// [`InvalidEmail`] when `text` is no address, or too long a one.
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

    /// The address as it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form under which two spellings of one address are equal.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

/// Personal data: shown in full only where it is asked for by [`Email::as_str`].
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

/// RFC 822's quoted string: any ASCII but NUL, tab, newlines, space, `"` and `\`, which a backslash may escape.
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
    // The reference asks less of the last label: hyphens anywhere, any length from two.
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

/// ASCII letters, digits, the hyphen, and all of the Basic Multilingual Plane from U+00A1 on,
/// which is what the reference takes for letters of other scripts.
fn is_label_char(c: char) -> bool {
    c == '-' || c.is_ascii_alphanumeric() || matches!(c, '\u{a1}'..='\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdicts_are_the_references() {
        let cases: Vec<(String, bool)> =
            serde_json::from_str(include_str!("../../tests/vectors/email.json")).unwrap();
        assert!(cases.len() > 50);
        for (address, valid) in cases {
            let malformed = Email::parse(&address) == Err(InvalidEmail::Malformed);
            assert_eq!(malformed, !valid, "{address:?}");
        }
    }

    #[test]
    fn an_address_beyond_the_column_is_refused() {
        let fits = format!("{}@example.com", "x".repeat(243));
        assert!(Email::parse(&fits).is_ok());
        assert_eq!(Email::parse(&format!("x{fits}")), Err(InvalidEmail::TooLong));
    }

    #[test]
    fn debug_output_hides_the_address() {
        let email = Email::parse("alice@example.com").unwrap();
        assert_eq!(format!("{email:?}"), "Email(***)");
    }
}
