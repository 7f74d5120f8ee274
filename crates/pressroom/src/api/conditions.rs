//! Conditions that a request puts on the state of what it is about (RFC 9110, section 13).
//!
//! `If-None-Match` on GET compares whole entity tags. What changes an article compares versions: a PUT
//! replaces nothing that the rest of the tag is about, and somebody's favourite must not keep an
//! author from saving.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use jiff::Timestamp;

use super::entity_tag;
use crate::articles::Precondition;

/// The conditions of a request.
#[derive(Debug)]
pub struct Conditions(HeaderMap);

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = std::convert::Infallible;

    /// Only these fields are copied: most requests have none.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let mut conditions = HeaderMap::new();
        for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
            for value in parts.headers.get_all(&name) {
                conditions.append(name.clone(), value.clone());
            }
        }
        Ok(Self(conditions))
    }
}

impl Conditions {
    /// Whether a reader who has what `If-None-Match` lists has this already.
    pub(super) fn include(&self, tag: &str) -> bool {
        match Listed::read(&self.0, &header::IF_NONE_MATCH) {
            None => false,
            Some(Listed::Any) => true,
            // Compared weakly: a proxy that compresses makes tags weak.
            Some(Listed::Tags(tags)) => tags
                .iter()
                .any(|listed| listed.opaque == tag.trim_matches('"').as_bytes()),
        }
    }

    /// What `If-Match` and `If-None-Match` ask of the version that a change replaces.
    pub(super) fn precondition(&self) -> Precondition {
        let one_of = match Listed::read(&self.0, &header::IF_MATCH) {
            // There is one, or the answer is 404 anyway.
            None | Some(Listed::Any) => None,
            // Compared strongly: a weak tag matches nothing.
            Some(Listed::Tags(tags)) => Some(versions(tags.iter().filter(|tag| !tag.weak))),
        };
        match Listed::read(&self.0, &header::IF_NONE_MATCH) {
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
}

fn versions<'a>(tags: impl Iterator<Item = &'a Tag<'a>>) -> Vec<Timestamp> {
    tags.filter_map(|tag| entity_tag::version(tag.opaque)).collect()
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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::{
        super::entity_tag::{entity_tag, tests::article},
        *,
    };

    fn conditions(name: HeaderName, fields: &[&str]) -> Conditions {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name.clone(), HeaderValue::from_str(field).unwrap());
        }
        Conditions(headers)
    }

    #[test]
    fn a_tag_is_known_when_it_is_listed_anywhere_weak_or_not() {
        let tag = entity_tag(&article());
        let known = |fields: &[&str]| conditions(header::IF_NONE_MATCH, fields).include(&tag);
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
        let holds = |name, fields: &[&str]| conditions(name, fields).precondition().holds(now);
        assert!(Conditions(HeaderMap::new()).precondition().holds(now));
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
        assert!(!conditions(header::IF_NONE_MATCH, &[&before]).include(&entity_tag(&liked)));
        assert!(
            conditions(header::IF_MATCH, &[&before])
                .precondition()
                .holds(liked.updated_at)
        );
    }
}
