//! Parsing of `page`, `per_page`, `cursor`, `sort`, `search`, `author` and `favorited` in a query string.
//!
//! Numbers follow the reference implementation, which uses Python's `int()`: the default replaces an invalid
//! number, and a number out of range is clamped. An invalid `sort`, `author` or `favorited` is ignored, as
//! the reference ignores parameters that it does not know. The first value of a repeated parameter counts.

use std::borrow::Cow;

use jiff::Timestamp;
use utoipa::{
    IntoParams,
    openapi::{
        Object, ObjectBuilder,
        schema::{SchemaType, Type},
    },
};

use super::error::ApiError;
use crate::domain::{Article, ArticleId, Cursor, ListOrder, ListQuery, PageStart, UserId};

const DEFAULT_PAGE: i64 = 1;
const DEFAULT_PER_PAGE: i64 = 20;
const MAX_PER_PAGE: i64 = ListQuery::MAX_LIMIT;
/// Maximum page number, whose offset still fits into 64 bits.
const MAX_PAGE: i64 = i64::MAX / MAX_PER_PAGE;

/// Number of hexadecimal digits of a cursor's time, in microseconds since the Unix epoch: enough until the year 4253.
const TIME_DIGITS: usize = 14;
/// Number of hexadecimal digits of a cursor's id.
const ID_DIGITS: usize = 8;

/// The requested page of the list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    #[param(required = false, schema_with = page_number)]
    pub page: i64,
    #[param(required = false, schema_with = articles_per_page)]
    pub per_page: i64,
    /// `next_cursor` of the previous page; send it with the same `sort` and filters. Costs the same at any
    /// depth. Takes precedence over `page`.
    #[param(value_type = Option<String>, pattern = "^([0-9a-f]{14}[0-7][0-9a-f]{7})?$")]
    cursor: Option<Cursor>,
    /// `newest` or `oldest` first, by `created_at`; other text counts as `newest`.
    #[param(value_type = Option<String>, default = "newest")]
    sort: ListOrder,
    /// Substring of the title, ignoring case.
    #[param(pattern = "^[^\\u0000]*$")]
    search: Option<String>,
    #[param(required = false, schema_with = author_id)]
    author: Option<UserId>,
    #[param(required = false, schema_with = favorited_by_caller)]
    favorited: Option<bool>,
}

fn page_number() -> Object {
    let text = "Page number, starting at 1. Smaller numbers count as 1; other text counts as the default.";
    value_or_text(Type::Integer, text)
        .default(Some(DEFAULT_PAGE.into()))
        .build()
}

fn articles_per_page() -> Object {
    let text = "Maximum number of articles on a page. A page has fewer if their texts would exceed 2 MiB. \
        Numbers above 100 count as 100; numbers below 1 and other text count as the default.";
    value_or_text(Type::Integer, text)
        .default(Some(DEFAULT_PER_PAGE.into()))
        .build()
}

fn author_id() -> Object {
    let text = "Only articles by the user with this id. Other text is ignored.";
    value_or_text(Type::Integer, text).build()
}

fn favorited_by_caller() -> Object {
    let text = "Only articles that the caller has favourited (`true`) or has not favourited (`false`). \
        Without a token, no article is favourited. Other text is ignored.";
    value_or_text(Type::Boolean, text).build()
}

/// Returns the schema of a parameter that accepts any text, because invalid text is not an error.
fn value_or_text(value: Type, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([value, Type::String]))
        .description(Some(description))
}

impl Paging {
    /// Parses a query string.
    ///
    /// # Errors
    /// 400 for a malformed cursor, or for a search text with NUL, which no title can contain.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let value = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let page = value("page").and_then(|page| int(&page)).unwrap_or(DEFAULT_PAGE);
        let per_page = match value("per_page").and_then(|per_page| int(&per_page)) {
            Some(per_page) if per_page >= 1 => per_page.min(MAX_PER_PAGE),
            _ => DEFAULT_PER_PAGE,
        };
        let cursor = value("cursor").filter(|cursor| !cursor.is_empty());
        let cursor = cursor.map(|cursor| {
            decode_cursor(&cursor).ok_or_else(|| ApiError::invalid_field("cursor", "Not a valid cursor."))
        });
        let search = value("search").filter(|search| !search.is_empty());
        if search.as_ref().is_some_and(|search| search.contains('\0')) {
            return Err(ApiError::invalid_field(
                "search",
                "Null characters are not allowed.",
            ));
        }
        Ok(Self {
            page: page.clamp(1, MAX_PAGE),
            per_page,
            cursor: cursor.transpose()?,
            sort: value("sort").and_then(|sort| order(&sort)).unwrap_or_default(),
            search: search.map(Cow::into_owned),
            author: value("author").and_then(|author| user_id(&author)),
            favorited: value("favorited").and_then(|favorited| favorited.parse().ok()),
        })
    }

    pub fn query(&self, viewer: Option<UserId>) -> ListQuery {
        ListQuery {
            start: match self.cursor {
                Some(cursor) => PageStart::After(cursor),
                None => PageStart::Offset((self.page - 1) * self.per_page),
            },
            limit: self.per_page,
            order: self.sort,
            search: self.search.clone(),
            author: self.author,
            favorited: self.favorited,
            viewer,
        }
    }
}

fn order(text: &str) -> Option<ListOrder> {
    match text {
        "newest" => Some(ListOrder::Newest),
        "oldest" => Some(ListOrder::Oldest),
        _ => None,
    }
}

fn user_id(text: &str) -> Option<UserId> {
    text.parse().ok().filter(|id| *id >= 1).map(UserId)
}

/// Returns the cursor of the page that begins after `article`.
///
/// Every string of this form is a position that both databases can compare with. A time before 1970 or
/// after the year 4253 becomes the nearest time that fits.
pub(super) fn encode_cursor(article: &Article) -> String {
    let latest = (1 << (4 * TIME_DIGITS)) - 1;
    let created_at = article.created_at.as_microsecond().clamp(0, latest);
    format!("{created_at:0TIME_DIGITS$x}{:0ID_DIGITS$x}", article.id.0)
}

fn decode_cursor(text: &str) -> Option<Cursor> {
    let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !hexadecimal || text.len() != TIME_DIGITS + ID_DIGITS {
        return None;
    }
    let (created_at, id) = text.split_at(TIME_DIGITS);
    let created_at = i64::from_str_radix(created_at, 16).ok()?;
    Some(Cursor {
        created_at: Timestamp::from_microsecond(created_at).ok()?,
        id: ArticleId(i32::from_str_radix(id, 16).ok()?),
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
    use super::{super::entity_tag::tests::article, *};

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
    fn only_cursors_of_the_issued_form_are_accepted() {
        let mut article = article();
        for (micros, id, read) in [
            (1_735_284_134_000_001, 42, 1_735_284_134_000_001),
            (0, i32::MAX, 0),
            (-1, 1, 0),
            (253_402_207_200_000_000, 1, (1 << 56) - 1),
        ] {
            article.created_at = Timestamp::from_microsecond(micros).unwrap();
            article.id = ArticleId(id);
            let query = format!("cursor={}", encode_cursor(&article));
            let cursor = Paging::parse(&query).unwrap().cursor.unwrap();
            assert_eq!((cursor.created_at.as_microsecond(), cursor.id.0), (read, id));
        }
        for bad in [
            "x",
            "!!",
            "LTM3NzcwNTAyMzIwMTAwMDAwMC4x",
            "062a3f8e3b2a4180000000",
            "062A3f8e3b2a410000002a",
            "+62a3f8e3b2a410000002a",
            "062a3f8e3b2a410000002aa",
        ] {
            assert!(Paging::parse(&format!("cursor={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn invalid_filters_and_orders_are_ignored() {
        let paging = Paging::parse("author=2147483647&favorited=true&sort=oldest").unwrap();
        assert_eq!(
            (paging.author, paging.favorited, paging.sort),
            (Some(UserId(i32::MAX)), Some(true), ListOrder::Oldest)
        );
        let paging = Paging::parse("favorited=false&sort=newest").unwrap();
        assert_eq!(
            (paging.author, paging.favorited, paging.sort),
            (None, Some(false), ListOrder::Newest)
        );
        for wrong in [
            "author=",
            "author=0",
            "author=-1",
            "author=2147483648",
            "author=ann",
            "favorited=",
            "favorited=1",
            "favorited=True",
            "sort=",
            "sort=Newest",
            "sort=title",
        ] {
            let paging = Paging::parse(wrong).unwrap();
            assert_eq!(
                (paging.author, paging.favorited, paging.sort),
                (None, None, ListOrder::Newest),
                "{wrong}"
            );
        }
    }
}
