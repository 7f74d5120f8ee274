//! Reading `page`, `per_page`, `search` and `cursor` from a query string.
//!
//! Numbers are read as the reference reads them, by Python's `int()`: what does not parse is the
//! default, what lies outside is brought inside. The first of several values counts.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::error::{ApiError, Faults};
use crate::{
    accounts::UserId,
    articles::{Article, ArticleId, Cursor, ListQuery, PageStart},
};

const DEFAULT_PER_PAGE: i64 = 20;
const MAX_PER_PAGE: i64 = 100;
/// Beyond any table, and its offset still fits 64 bits.
const MAX_PAGE: i64 = i64::MAX / MAX_PER_PAGE;

/// Which page of the list is asked for.
#[derive(Debug)]
pub(super) struct Paging {
    pub page: i64,
    pub per_page: i64,
    search: Option<String>,
    cursor: Option<Cursor>,
}

impl Paging {
    /// # Errors
    /// 400 for a cursor that we did not make, and for a search that no title can hold.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let value = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let page = value("page")
            .and_then(|page| int(&page))
            .unwrap_or(1)
            .clamp(1, MAX_PAGE);
        let per_page = match value("per_page").and_then(|per_page| int(&per_page)) {
            Some(per_page) if per_page >= 1 => per_page.min(MAX_PER_PAGE),
            _ => DEFAULT_PER_PAGE,
        };
        let search = value("search").filter(|search| !search.is_empty());
        if search.as_ref().is_some_and(|search| search.contains('\0')) {
            return Err(fault("search", "Null characters are not allowed."));
        }
        let cursor = match value("cursor").filter(|cursor| !cursor.is_empty()) {
            Some(cursor) => {
                Some(decode_cursor(&cursor).ok_or_else(|| fault("cursor", "Not a valid cursor."))?)
            }
            None => None,
        };
        Ok(Self {
            page,
            per_page,
            search: search.map(std::borrow::Cow::into_owned),
            cursor,
        })
    }

    pub fn query(&self, viewer: Option<UserId>) -> ListQuery {
        ListQuery {
            start: match self.cursor {
                Some(cursor) => PageStart::After(cursor),
                None => PageStart::Offset((self.page - 1) * self.per_page),
            },
            limit: self.per_page,
            search: self.search.clone(),
            viewer,
        }
    }
}

/// Where the page after this article begins.
pub(super) fn encode_cursor(article: &Article) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}.{}", article.created_at.as_microsecond(), article.id))
}

fn decode_cursor(text: &str) -> Option<Cursor> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (created_at, id) = decoded.split_once('.')?;
    Some(Cursor {
        created_at: Timestamp::from_microsecond(created_at.parse().ok()?).ok()?,
        id: ArticleId(id.parse().ok()?),
    })
}

/// Python's `int()` of a text: spaces around it, a sign, single underscores between digits. What is
/// beyond 64 bits is as far as they go.
fn int(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let digits = digits.replace('_', "");
    if misplaced || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

fn fault(field: &str, message: &str) -> ApiError {
    ApiError::validation(Faults::from([(field.to_owned(), vec![message.to_owned()])]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        let cases = [
            ("7", Some(7)),
            (" 7\t", Some(7)),
            ("+7", Some(7)),
            ("-7", Some(-7)),
            ("1_0", Some(10)),
            ("99999999999999999999", Some(i64::MAX)),
            ("", None),
            ("_1", None),
            ("1__0", None),
            ("1.5", None),
            ("abc", None),
            ("- 7", None),
        ];
        for (text, expected) in cases {
            assert_eq!(int(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_lies_outside_is_brought_inside() {
        for (query, page, per_page) in [
            ("", 1, 20),
            ("page=0&per_page=0", 1, 20),
            ("page=-3&per_page=-1", 1, 20),
            ("page=99999999999999999999&per_page=101", MAX_PAGE, 100),
            ("per_page=2&per_page=3", 1, 2),
        ] {
            let paging = Paging::parse(query).unwrap();
            assert_eq!((paging.page, paging.per_page), (page, per_page), "{query}");
        }
        let deepest = Paging::parse("page=99999999999999999999&per_page=100").unwrap();
        assert!(matches!(deepest.query(None).start, PageStart::Offset(offset) if offset > 0));
    }

    #[test]
    fn a_cursor_of_ours_is_read_back_and_another_refused() {
        let cursor = URL_SAFE_NO_PAD.encode("1735284134000001.42");
        let paging = Paging::parse(&format!("cursor={cursor}")).unwrap();
        assert_eq!(paging.cursor.unwrap().id, ArticleId(42));
        assert_eq!(
            paging.cursor.unwrap().created_at.as_microsecond(),
            1_735_284_134_000_001
        );
        for bad in ["x", "!!", "MTIz", "OTk5OTk5OTk5OTk5OTk5OTk5OTkuMQ"] {
            assert!(Paging::parse(&format!("cursor={bad}")).is_err(), "{bad}");
        }
    }
}
