//! Conditional requests: `If-Match` and `If-None-Match` (RFC 9110, section 13).
//!
//! GET compares whole entity tags. PUT and DELETE compare only the version part, because another user's
//! favourite, which also changes the tag, must not fail the author's update.
//!
//! A proxy that compresses a response makes its tag weak or appends the coding. Such a tag still identifies the
//! version, so it counts like the original.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use jiff::Timestamp;

use super::entity_tag::{version, without_coding};
use crate::domain::Precondition;

/// The conditional header fields of a request.
#[derive(Debug)]
pub struct Conditions(HeaderMap);

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = std::convert::Infallible;

    /// Copies only the conditional fields, which most requests do not have.
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
    /// Whether `If-None-Match` lists `tag`: the client's cached version is current.
    pub(super) fn include(&self, tag: &HeaderValue) -> bool {
        match Listed::read(&self.0, &header::IF_NONE_MATCH) {
            None => false,
            Some(Listed::Any) => true,
            Some(Listed::Tags(tags)) => {
                let own = Tags(tag.as_bytes()).next();
                own.is_some_and(|own| tags.iter().any(|listed| without_coding(listed) == own))
            }
        }
    }

    /// Returns the requirements of `If-Match` and `If-None-Match` on the version to be replaced.
    pub(super) fn precondition(&self) -> Precondition {
        let one_of = match Listed::read(&self.0, &header::IF_MATCH) {
            // `*` matches any existing article; a missing article results in 404 in any case.
            None | Some(Listed::Any) => None,
            Some(Listed::Tags(tags)) => Some(versions(&tags)),
        };
        let none_of = match Listed::read(&self.0, &header::IF_NONE_MATCH) {
            None => Vec::new(),
            Some(Listed::Any) => return Precondition::NEVER,
            Some(Listed::Tags(tags)) => versions(&tags),
        };
        Precondition { one_of, none_of }
    }
}

fn versions(tags: &[&[u8]]) -> Vec<Timestamp> {
    tags.iter().copied().filter_map(version).collect()
}

/// Value of a conditional field.
enum Listed<'a> {
    Any,
    /// The tags without their quotes and `W/`.
    Tags(Vec<&'a [u8]>),
}

impl<'a> Listed<'a> {
    /// Reads all fields named `name` as one list; the rest of a field after a syntax error is ignored.
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

/// Iterator over the tags of one field, up to the first syntax error.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        while let [b',' | b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let quoted = self.0.strip_prefix(b"W/").unwrap_or(self.0);
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        self.0 = &inner[end + 1..];
        Some(&inner[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::entity_tag::{
            entity_tag,
            tests::{article, tag_of},
        },
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
    fn if_none_match_finds_a_weak_or_strong_tag_anywhere_in_the_list() {
        let tag = tag_of(&article());
        let known =
            |fields: &[&str]| conditions(header::IF_NONE_MATCH, fields).include(&entity_tag(&article()));
        assert!(known(&[&tag]));
        assert!(known(&[&format!("W/{tag}")]));
        assert!(known(&["*"]));
        assert!(known(&[&format!("{}-gzip\"", tag.trim_end_matches('"'))]));
        assert!(known(&[&format!("\"a, b\" ,, W/\"c\",{tag}, \"d\"")]));
        assert!(known(&["\"a\"", &tag]));
        assert!(!known(&[]));
        assert!(!known(&[""]));
        assert!(!known(&["\"a\"", "\"*\""]));
        assert!(!known(&[tag.trim_matches('"')]), "a tag without quotes");
        assert!(
            !known(&[&format!("\"a {tag}")]),
            "a tag inside another tag's quotes"
        );
    }

    #[test]
    fn a_precondition_compares_the_current_version_with_the_listed_ones() {
        let tag = tag_of(&article());
        let now = article().updated_at;
        let holds = |name, fields: &[&str]| conditions(name, fields).precondition().holds(now);
        assert!(Conditions(HeaderMap::new()).precondition().holds(now));
        assert!(holds(header::IF_MATCH, &["*"]));
        assert!(holds(header::IF_MATCH, &[&tag]));
        assert!(holds(header::IF_MATCH, &[&format!("\"x\", {tag}")]));
        assert!(holds(header::IF_MATCH, &[&format!("W/{tag}")]));
        assert!(holds(
            header::IF_MATCH,
            &[&format!("W/{}-gzip\"", tag.trim_end_matches('"'))]
        ));
        assert!(!holds(header::IF_MATCH, &["\"x\""]));
        assert!(!holds(header::IF_MATCH, &["x"]));
        assert!(!holds(header::IF_MATCH, &[""]));
        assert!(!holds(header::IF_NONE_MATCH, &["*"]));
        assert!(!holds(header::IF_NONE_MATCH, &[&format!("W/{tag}")]));
        assert!(holds(header::IF_NONE_MATCH, &["\"x\""]));
    }

    #[test]
    fn a_favourite_changes_the_tag_but_not_the_version() {
        let before = tag_of(&article());
        let mut favourited = article();
        favourited.favorites_count = 1;
        assert!(!conditions(header::IF_NONE_MATCH, &[&before]).include(&entity_tag(&favourited)));
        assert!(
            conditions(header::IF_MATCH, &[&before])
                .precondition()
                .holds(favourited.updated_at)
        );
    }
}
