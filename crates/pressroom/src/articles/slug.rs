//! The slug of an article: its title transliterated to ASCII, and the time of its creation.
//!
//! The rules are those of the reference implementation (python-slugify with text-unidecode), so titles have the same
//! slugs in both systems.

use jiff::Timestamp;
use unicode_normalization::UnicodeNormalization;

use super::entities::ENTITIES;

/// Maximum length of the column, in bytes (slugs are ASCII).
const MAX_LEN: usize = 255;

/// Slug text for a title without characters that a slug can contain.
const EMPTY_TITLE: &str = "article";

/// Returns the slug of an article with this title and creation time. After a conflict, `suffix` makes the slug
/// unique.
#[must_use]
pub fn slug(title: &str, made_at: Timestamp, suffix: Option<&str>) -> String {
    let mut tail = format!("-{}", made_at.as_second());
    if let Some(suffix) = suffix {
        tail.push('-');
        tail.push_str(suffix);
    }
    let mut base = slugify(title);
    if base.is_empty() {
        base.push_str(EMPTY_TITLE);
    }
    base.truncate(MAX_LEN - tail.len());
    base.truncate(base.trim_end_matches('-').len());
    base + &tail
}

/// Returns the lower-case ASCII letters and digits of a title, with single hyphens between words.
fn slugify(title: &str) -> String {
    // Straight quotes separate words; quotes from transliteration are removed below. The two Armenian letters have
    // no decomposition in the reference's version of Unicode.
    let parted = title.replace(['\'', '\u{558}', '\u{58c}'], "-");
    let ascii: String = parted.nfkd().map(transliterate).collect();
    let resolved: String = resolve_references(&ascii).nfkd().collect();
    let lowered = resolved.to_lowercase().replace('\'', "");

    let mut slug = String::with_capacity(lowered.len());
    let mut chars = lowered.chars().peekable();
    let mut previous = ' ';
    while let Some(c) = chars.next() {
        let thousands =
            c == ',' && previous.is_ascii_digit() && chars.peek().is_some_and(char::is_ascii_digit);
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !thousands && !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        previous = c;
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// Transliterates a character to ASCII; `[?]` if no transliteration is known.
fn transliterate(c: char) -> &'static str {
    match c {
        // The reference's table lacks these characters, which the crate's newer table contains.
        '\u{80}'..='\u{9f}' | '\u{2e5}'..='\u{2eb}' | '\u{fdf0}'..='\u{fdfb}' => "",
        '\u{3f6}'..='\u{3f9}'
        | '\u{3fc}'..='\u{3ff}'
        | '\u{6ff}'
        | '\u{1efa}'..='\u{1eff}'
        | '\u{fdfc}'
        | '\u{fdfd}' => "[?]",
        _ => unidecode::unidecode_char(c),
    }
}

/// Replaces the character references `&name;`, `&#123;` and `&#x7b;`.
fn resolve_references(text: &str) -> String {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        let (before, from) = rest.split_at(start);
        resolved.push_str(before);
        match reference(from) {
            Some((c, len)) => {
                resolved.push(c);
                rest = &from[len..];
            }
            None => {
                resolved.push('&');
                rest = &from[1..];
            }
        }
    }
    resolved + rest
}

/// Returns the character of the reference at the start of `text`, and the reference's length.
fn reference(text: &str) -> Option<(char, usize)> {
    let end = text.find(';')?;
    let name = &text[1..end];
    let c = if let Some(hex) = name.strip_prefix("#x") {
        char::from_u32(u32::from_str_radix(hex, 16).ok()?)?
    } else if let Some(decimal) = name.strip_prefix('#') {
        // A reference to NUL stays unresolved, so its digits remain in the slug.
        char::from_u32(decimal.parse().ok()?).filter(|c| *c != '\0')?
    } else {
        let index = ENTITIES.binary_search_by_key(&name, |(name, _)| name).ok()?;
        ENTITIES[index].1
    };
    Some((c, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn slugs_match_those_of_the_reference() {
        let cases: Vec<(String, String)> =
            serde_json::from_str(include_str!("../../tests/vectors/slugify.json")).unwrap();
        assert!(cases.len() > 400);
        let wrong: Vec<_> = cases
            .iter()
            .map(|(title, expected)| (title, slugify(title), expected))
            .filter(|(_, ours, expected)| ours != *expected)
            .collect();
        assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
    }

    #[test]
    fn the_time_follows_the_title() {
        assert_eq!(
            slug("My Article", at(1_735_284_134), None),
            "my-article-1735284134"
        );
        assert_eq!(
            slug("My Article", at(1_735_284_134), Some("x")),
            "my-article-1735284134-x"
        );
    }

    #[test]
    fn a_title_without_letters_becomes_article() {
        assert_eq!(slug("!!!", at(1), None), "article-1");
    }

    #[test]
    fn the_longest_title_fits_the_column() {
        // One character may become several letters.
        let slug = slug(&"щ".repeat(255), at(1_735_284_134), Some("abcd"));
        assert_eq!(slug.len(), 255);
        assert!(slug.ends_with("-1735284134-abcd"));
    }
}
