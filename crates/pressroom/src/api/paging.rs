//! Parsing of `page`, `per_page`, `search` and `cursor` in a query string.
//!
//! Numbers follow the reference implementation, which uses Python's `int()`: the default replaces an invalid
//! number, and a number out of range is clamped. The first value of a repeated parameter counts.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::domain::{Article, ArticleId, Cursor, ListQuery, PageStart, UserId};

const DEFAULT_PER_PAGE: i64 = 20;
const MAX_PER_PAGE: i64 = 100;
/// Maximum page number, whose offset still fits into 64 bits.
const MAX_PAGE: i64 = i64::MAX / MAX_PER_PAGE;

/// The requested page of the list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Page number, starting at 1.
    #[param(value_type = Option<i64>, minimum = 1, default = 1)]
    pub page: i64,
    /// Maximum number of articles on a page, which has fewer if their texts exceed 2 MiB.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 20)]
    pub per_page: i64,
    /// Substring of the title, ignoring case.
    search: Option<String>,
    /// `next_cursor` of the previous page. Costs the same at any depth; takes precedence over `page`.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

impl Paging {
    /// Parses a query string.
    ///
    /// # Errors
    /// 400 for a malformed cursor, and for a search text with NUL, which no title can contain.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let value = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let page = value("page").and_then(|page| int(&page)).unwrap_or(1);
        let per_page = match value("per_page").and_then(|per_page| int(&per_page)) {
            Some(per_page) if per_page >= 1 => per_page.min(MAX_PER_PAGE),
            _ => DEFAULT_PER_PAGE,
        };
        let search = value("search").filter(|search| !search.is_empty());
        if search.as_ref().is_some_and(|search| search.contains('\0')) {
            return Err(ApiError::invalid_field(
                "search",
                "Null characters are not allowed.",
            ));
        }
        let cursor = value("cursor").filter(|cursor| !cursor.is_empty());
        let cursor = cursor.map(|cursor| {
            decode_cursor(&cursor).ok_or_else(|| ApiError::invalid_field("cursor", "Not a valid cursor."))
        });
        Ok(Self {
            page: page.clamp(1, MAX_PAGE),
            per_page,
            search: search.map(std::borrow::Cow::into_owned),
            cursor: cursor.transpose()?,
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

/// Returns the cursor of the page that begins after `article`.
pub(super) fn encode_cursor(article: &Article) -> String {
    let created_at = article.created_at.as_microsecond();
    URL_SAFE_NO_PAD.encode(format!("{created_at}.{}", article.id.0))
}

fn decode_cursor(text: &str) -> Option<Cursor> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (created_at, id) = decoded.split_once('.')?;
    Some(Cursor {
        created_at: Timestamp::from_microsecond(created_at.parse().ok()?).ok()?,
        id: ArticleId(id.parse().ok()?),
    })
}

/// Parses a number as Python's `int()` does: surrounding white space, a sign and single underscores
/// between digits are allowed. Numbers beyond 64 bits saturate.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_parse_as_in_python() {
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
    fn numbers_out_of_range_are_clamped() {
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
    fn only_issued_cursors_are_accepted() {
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
