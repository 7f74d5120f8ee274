//! Entity tags of articles and of pages of the list (RFC 9110, section 8.8.3).
//!
//! The tag of a page is a digest of the response. The tag of an article has the form `"<version>-<view>"`.
//! The version is the article's `updated_at`, which increases with every update. The view is a digest of the
//! other variable parts of the response: the number of favourites, whether the reader has favourited the
//! article, and the author's id, name and e-mail address. The tag changes whenever the response changes, so
//! it is a strong validator although the text of the article is not hashed. Its cost does not depend on the
//! length of the article.

use axum::http::HeaderValue;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::domain::Article;

/// Earliest version that both databases can store, the beginning of year 1, in microseconds since the Unix epoch.
const EARLIEST: i64 = -62_135_596_800_000_000;

/// Content codings that proxies append to the tag of a response that they compress.
const CODINGS: [&[u8]; 4] = [b"gzip", b"br", b"zstd", b"deflate"];

/// Version of the response format; increment it when the fields of the response change.
const FORMAT_VERSION: u8 = 1;

/// Returns the entity tag of an article, which depends on the reader through `favorited`.
pub(super) fn entity_tag(article: &Article) -> HeaderValue {
    let mut view = Sha256::new();
    view.update([FORMAT_VERSION, u8::from(article.favorited)]);
    view.update(article.favorites_count.to_be_bytes());
    view.update(article.author.id.0.to_be_bytes());
    view.update(article.author.name.as_bytes());
    // Neither name nor address can contain NUL, so NUL separates them unambiguously.
    view.update([0]);
    view.update(article.author.email.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&view.finalize()[..8]);
    let (version, view) = (article.updated_at.as_microsecond(), u64::from_be_bytes(head));
    HeaderValue::try_from(format!("\"{version:x}-{view:016x}\""))
        .expect("a tag contains only hexadecimal digits, a hyphen and quotes")
}

/// Returns the entity tag of a response with this body.
pub(super) fn tag_of_body(body: &[u8]) -> HeaderValue {
    let mut head = [0; 8];
    head.copy_from_slice(&Sha256::digest(body)[..8]);
    HeaderValue::try_from(format!("\"{:016x}\"", u64::from_be_bytes(head)))
        .expect("a tag contains only hexadecimal digits and quotes")
}

/// Returns the tag without the suffix that compressing proxies append, such as `-gzip`. No tag of this
/// program ends with a coding.
pub(super) fn without_coding(opaque: &[u8]) -> &[u8] {
    let stripped = CODINGS.iter().find_map(|coding| opaque.strip_suffix(*coding));
    let Some(mut tag) = stripped else {
        return opaque;
    };
    while let [rest @ .., b'-' | b';' | b':' | b'+'] = tag {
        tag = rest;
    }
    tag
}

/// Returns the version in `opaque`, the unquoted part of a tag made by [`entity_tag`], or `None` if no article
/// can have such a tag.
pub(super) fn version(opaque: &[u8]) -> Option<Timestamp> {
    let opaque = without_coding(opaque);
    let (version, view) = std::str::from_utf8(opaque).ok()?.split_once('-')?;
    u64::from_str_radix(view, 16).ok()?;
    let version = u64::from_str_radix(version, 16).ok()?.cast_signed();
    Timestamp::from_microsecond(version)
        .ok()
        .filter(|_| version >= EARLIEST)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{ArticleId, Author, UserId};

    /// Returns the entity tag of an article as text.
    pub(in crate::api) fn tag_of(article: &Article) -> String {
        entity_tag(article).to_str().unwrap().to_owned()
    }

    pub(in crate::api) fn article() -> Article {
        Article {
            id: ArticleId(1),
            slug: "one-1".to_owned(),
            title: "One".to_owned(),
            description: String::new(),
            body: "x".to_owned(),
            author: Author {
                id: UserId(1),
                email: "ann@example.com".to_owned(),
                name: "Ann".to_owned(),
            },
            favorites_count: 0,
            favorited: false,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::from_microsecond(1_795_329_860_123_456).unwrap(),
        }
    }

    #[test]
    fn each_change_that_a_reader_can_see_changes_the_tag() {
        let changes: [fn(&mut Article); 6] = [
            |article| article.updated_at = Timestamp::UNIX_EPOCH,
            |article| article.favorites_count = 1,
            |article| article.favorited = true,
            |article| article.author.name.push('a'),
            |article| article.author.email.push('a'),
            |article| article.author.id = UserId(2),
        ];
        let mut tags = vec![tag_of(&article())];
        for change in changes {
            let mut changed = article();
            change(&mut changed);
            tags.push(tag_of(&changed));
        }
        let number = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), number, "{tags:?}");
    }

    #[test]
    fn the_version_can_be_read_back_from_a_tag_even_before_1970() {
        for micros in [-1, 0, 1_795_329_860_123_456] {
            let mut article = article();
            article.updated_at = Timestamp::from_microsecond(micros).unwrap();
            let tag = tag_of(&article);
            assert_eq!(
                version(tag.trim_matches('"').as_bytes()),
                Some(article.updated_at)
            );
        }
        for derived in ["-gzip", "--gzip", ";gzip", "-br", "-zstd", ":deflate"] {
            let tag = format!("{}{derived}", tag_of(&article()).trim_matches('"'));
            assert_eq!(version(tag.as_bytes()), Some(article().updated_at), "{derived}");
        }
        let year_minus_9999 = format!("{:x}-1", (-377_705_023_201_000_000_i64).cast_unsigned());
        for other in [
            year_minus_9999.as_str(),
            "gzip",
            "-gzip",
            "1-1-gzi",
            "-",
            "1",
            "x-1",
            "1-x",
            "1-",
            "-1",
            "fffffffffffffffff-1",
            "7fffffffffffffff-1",
        ] {
            assert_eq!(version(other.as_bytes()), None, "{other}");
        }
    }
}
