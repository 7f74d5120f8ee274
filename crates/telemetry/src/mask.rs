//! E-mail masking: `alice@example.com` leaves the process as `al***@example.com`. Applied to log lines as they are
//! written and to spans as they are exported, so a request pays for a search of `@` at most.

use std::borrow::Cow;

/// Masks every e-mail address in `text`: the first two characters of the local part stay, or none when it has only one
/// or two. `%40` counts as `@`, for query strings. Text without an address is returned as it is.
///
/// ```
/// assert_eq!(telemetry::mask("from alice@example.com"), "from al***@example.com");
/// assert_eq!(telemetry::mask("al@example.com"), "***@example.com");
/// ```
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut masked: Option<String> = None;
    let mut copied = 0;
    let mut searched = 0;
    while let Some((at, sign)) = next_sign(text, searched) {
        searched = at + sign.len();
        let local_start = at - local_part(&text[copied..at]).len();
        if local_start == at || !is_domain(&text[searched..]) {
            continue;
        }
        let local = &text[local_start..at];
        let out = masked.get_or_insert_with(|| String::with_capacity(text.len() + 3));
        out.push_str(&text[copied..local_start]);
        if local.chars().count() > 2 {
            out.extend(local.chars().take(2));
        }
        out.push_str("***");
        copied = at;
    }
    match masked {
        Some(mut out) => {
            out.push_str(&text[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(text),
    }
}

/// The next `@` or `%40` at or after `from`.
fn next_sign(text: &str, from: usize) -> Option<(usize, &'static str)> {
    let rest = &text[from..];
    let plain = rest.find('@');
    // One character is found much faster than three, and hardly any text has it.
    let encoded = rest[..plain.unwrap_or(rest.len())]
        .match_indices('%')
        .map(|(at, _)| at)
        .find(|at| rest[*at..].starts_with("%40"));
    match (encoded, plain) {
        (Some(at), _) => Some((from + at, "%40")),
        (None, Some(at)) => Some((from + at, "@")),
        (None, None) => None,
    }
}

fn local_part(before: &str) -> &str {
    let start = before
        .char_indices()
        .rev()
        .take_while(|(_, c)| c.is_alphanumeric() || "._%+-".contains(*c))
        .last()
        .map_or(before.len(), |(start, _)| start);
    &before[start..]
}

/// Whether `after` opens with a name that has a dot and something behind it.
fn is_domain(after: &str) -> bool {
    let end = after
        .find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '-'))
        .unwrap_or(after.len());
    let domain = after[..end].trim_end_matches(['.', '-']);
    domain
        .rsplit_once('.')
        .is_some_and(|(host, top)| !host.is_empty() && top.chars().count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_part_keeps_two_characters_or_none() {
        for (text, expected) in [
            ("alice@example.com", "al***@example.com"),
            ("ab@example.com", "***@example.com"),
            ("a@example.com", "***@example.com"),
            ("bob+news@mail.example.co.uk", "bo***@mail.example.co.uk"),
            ("jörg@example.de", "jö***@example.de"),
            ("to=alice%40example.com&x=1", "to=al***%40example.com&x=1"),
            (
                "Key (email)=(alice@example.com) already exists; see bob@example.org.",
                "Key (email)=(al***@example.com) already exists; see bo***@example.org.",
            ),
            (
                "alice@example.com,bob@example.com",
                "al***@example.com,bo***@example.com",
            ),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn text_without_an_address_is_not_copied() {
        for text in [
            "",
            "@",
            "plain",
            "celery@worker",
            "a @ b.com",
            "user@",
            "x@.com",
            "100%40",
        ] {
            assert!(
                matches!(mask(text), Cow::Borrowed(same) if same == text),
                "{text}"
            );
        }
    }
}
