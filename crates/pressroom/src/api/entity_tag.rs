//! Entity tags of articles, and the conditions that requests put on them (RFC 9110, sections 8.8.3
//! and 13).
//!
//! A tag is `"<version>-<view>"`. The version is the article's `updated_at`, which every change moves
//! on. The view is a digest of the rest of what this reader is shown: the count of favourites, whether
//! the reader's is among them, and the author's name and address. Together they change whenever the
//! answer's content does, so the tag is strong, without the text being hashed: on a processor with
//! SHA instructions it costs a quarter of a microsecond, however long the article is.
//!
//! `If-None-Match` on GET compares whole tags. What changes an article compares versions: a PUT
//! replaces nothing that the view is about, and somebody's favourite must not keep an author from
//! saving.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::articles::{Article, Precondition};

/// Goes with the fields of the answer: change it when they change.
const SHAPE: u8 = 1;

/// The tag of an article as one reader sees it.
pub(super) fn entity_tag(article: &Article) -> String {
    let mut view = Sha256::new();
    view.update([SHAPE, u8::from(article.favorited)]);
    view.update(article.favorites_count.to_be_bytes());
    view.update(article.author.id.0.to_be_bytes());
    view.update(article.author.name.as_bytes());
    // In no text, so that no two of them run together.
    view.update([0]);
    view.update(article.author.email.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&view.finalize()[..8]);
    format!(
        "\"{:x}-{:016x}\"",
        article.updated_at.as_microsecond(),
        u64::from_be_bytes(head)
    )
}

/// A tag as a header field.
pub(super) fn field(tag: String) -> HeaderValue {
    HeaderValue::try_from(tag).expect("hexadecimal digits, a hyphen and quotes")
}

/// Whether a reader who has what `If-None-Match` lists has this already.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    match Listed::read(headers, &header::IF_NONE_MATCH) {
        None => false,
        Some(Listed::Any) => true,
        // Compared weakly: a proxy that compresses makes tags weak.
        Some(Listed::Tags(tags)) => tags
            .iter()
            .any(|listed| listed.opaque == tag.trim_matches('"').as_bytes()),
    }
}

/// What `If-Match` and `If-None-Match` ask of the version that a change replaces.
pub(super) fn precondition(headers: &HeaderMap) -> Precondition {
    let one_of = match Listed::read(headers, &header::IF_MATCH) {
        // There is one, or the answer is 404 anyway.
        None | Some(Listed::Any) => None,
        // Compared strongly: a weak tag matches nothing.
        Some(Listed::Tags(tags)) => Some(versions(tags.iter().filter(|tag| !tag.weak))),
    };
    match Listed::read(headers, &header::IF_NONE_MATCH) {
        None => Precondition {
            one_of,
            none_of: Vec::new(),
        },
        Some(Listed::Any) => Precondition::NEVER,
        Some(Listed::Tags(tags)) => Precondition {
            one_of,
            none_of: versions(tags.iter()),
        },
    }
}

fn versions<'a>(tags: impl Iterator<Item = &'a Tag<'a>>) -> Vec<Timestamp> {
    tags.filter_map(Tag::version).collect()
}

/// What a condition lists.
enum Listed<'a> {
    Any,
    Tags(Vec<Tag<'a>>),
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Listed<'a> {
    /// The list of all fields with this name; what follows a fault in one is not part of it.
    fn read(headers: &'a HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut fields = headers.get_all(name).iter().peekable();
        fields.peek()?;
        let mut listed = Vec::new();
        for field in fields {
            let field = field.as_bytes().trim_ascii();
            if field == b"*" {
                return Some(Self::Any);
            }
            listed.extend(Tags(field));
        }
        Some(Self::Tags(listed))
    }
}

/// The tags of one field, as far as they are well formed.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        while let [b',' | b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let (weak, quoted) = match self.0 {
            [b'W', b'/', rest @ ..] => (true, rest),
            whole => (false, whole),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        self.0 = &inner[end + 1..];
        Some(Tag {
            weak,
            opaque: &inner[..end],
        })
    }
}

impl Tag<'_> {
    /// The version in a tag of ours.
    fn version(&self) -> Option<Timestamp> {
        let (version, view) = std::str::from_utf8(self.opaque).ok()?.split_once('-')?;
        u64::from_str_radix(view, 16).ok()?;
        let version = u64::from_str_radix(version, 16).ok()?;
        Timestamp::from_microsecond(version.cast_signed()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounts::UserId,
        articles::{ArticleId, Author},
    };

    fn article() -> Article {
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

    fn headers(name: HeaderName, fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name.clone(), HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    #[test]
    fn whatever_a_reader_sees_change_changes_the_tag() {
        let changes: [fn(&mut Article); 6] = [
            |article| article.updated_at = Timestamp::UNIX_EPOCH,
            |article| article.favorites_count = 1,
            |article| article.favorited = true,
            |article| article.author.name.push('a'),
            |article| article.author.email.push('a'),
            |article| article.author.id = UserId(2),
        ];
        let mut tags = vec![entity_tag(&article())];
        for change in changes {
            let mut changed = article();
            change(&mut changed);
            tags.push(entity_tag(&changed));
        }
        let number = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), number, "{tags:?}");
    }

    #[test]
    fn a_tag_is_known_when_it_is_listed_anywhere_weak_or_not() {
        let tag = entity_tag(&article());
        let known = |fields: &[&str]| is_known(&headers(header::IF_NONE_MATCH, fields), &tag);
        assert!(known(&[&tag]));
        assert!(known(&[&format!("W/{tag}")]));
        assert!(known(&["*"]));
        assert!(known(&[&format!("\"a, b\" ,, W/\"c\",{tag}, \"d\"")]));
        assert!(known(&["\"a\"", &tag]));
        assert!(!known(&[]));
        assert!(!known(&[""]));
        assert!(!known(&["\"a\"", "\"*\""]));
        assert!(!known(&[tag.trim_matches('"')]), "without quotes it is none");
        assert!(!known(&[&format!("\"a {tag}")]), "within another one's quotes");
    }

    #[test]
    fn a_change_is_held_to_the_versions_that_are_listed() {
        let tag = entity_tag(&article());
        let now = article().updated_at;
        let holds = |name, fields: &[&str]| precondition(&headers(name, fields)).holds(now);
        assert!(precondition(&HeaderMap::new()).holds(now));
        assert!(holds(header::IF_MATCH, &["*"]));
        assert!(holds(header::IF_MATCH, &[&tag]));
        assert!(holds(header::IF_MATCH, &[&format!("\"x\", {tag}")]));
        assert!(!holds(header::IF_MATCH, &[&format!("W/{tag}")]));
        assert!(!holds(header::IF_MATCH, &["\"x\""]));
        assert!(!holds(header::IF_MATCH, &["x"]));
        assert!(!holds(header::IF_MATCH, &[""]));
        assert!(!holds(header::IF_NONE_MATCH, &["*"]));
        assert!(!holds(header::IF_NONE_MATCH, &[&format!("W/{tag}")]));
        assert!(holds(header::IF_NONE_MATCH, &["\"x\""]));
    }

    #[test]
    fn a_favourite_does_not_keep_an_author_from_saving() {
        let before = entity_tag(&article());
        let mut liked = article();
        liked.favorites_count = 1;
        assert!(!is_known(
            &headers(header::IF_NONE_MATCH, &[&before]),
            &entity_tag(&liked)
        ));
        assert!(precondition(&headers(header::IF_MATCH, &[&before])).holds(liked.updated_at));
    }

    #[test]
    fn times_before_1970_have_versions_too() {
        let mut old = article();
        old.updated_at = Timestamp::from_microsecond(-1).unwrap();
        let tag = entity_tag(&old);
        assert!(precondition(&headers(header::IF_MATCH, &[&tag])).holds(old.updated_at));
    }
}
