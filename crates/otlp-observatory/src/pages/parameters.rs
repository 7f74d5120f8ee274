//! Query and path parameters of a request. Unknown and invalid parameters are errors: a misspelt filter must
//! not match everything.

use std::str::FromStr;

use axum::extract::RawPathParams;
use jiff::Timestamp;

use super::error::PageError;
use crate::store::{
    AGE_UNITS, Attribute, DURATION_UNITS, Position, SearchQuery, Since, Sort, SpanId, Subject, Text, TraceId,
    nanoseconds, now, parse_query,
};

/// Range of `limit`.
const LIMITS: std::ops::RangeInclusive<usize> = 1..=500;

/// Default of `limit`.
const DEFAULT_LIMIT: usize = 50;

/// Maximum number of attribute filters.
const MAX_ATTRIBUTES: usize = 16;

/// Default time window: five minutes, in nanoseconds.
const DEFAULT_WINDOW: u64 = 300_000_000_000;

/// Parameters of a request as text.
///
/// Each method removes the parameter that it returns. The remaining parameters are unknown to the page.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    now: u64,
}

impl Parameters {
    /// Decodes the parameters of the path and the query.
    pub(super) fn new(path: &RawPathParams, query: Option<&str>) -> Self {
        let query = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        let path = path
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            given: query.chain(path).collect(),
            now: now(),
        }
    }

    /// Whether a parameter depends on the current time.
    pub(super) fn is_time_dependent(&self) -> bool {
        self.given
            .iter()
            .any(|(name, _)| matches!(&**name, "from" | "to"))
    }

    /// Checks that no parameter remains.
    ///
    /// # Errors
    /// Returns an error that names an unknown parameter.
    pub(super) fn finish(&self) -> Result<(), PageError> {
        match self.given.first() {
            Some((name, _)) => Err(PageError::parameter(name, "is not a parameter of this page")),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str, max: usize) -> Result<Vec<String>, PageError> {
        let given = self.given.extract_if(.., |(given, _)| given == name);
        let mut values: Vec<String> = given.map(|(_, value)| value).collect();
        if values.len() > max {
            return Err(PageError::parameter(name, "is given too many times"));
        }
        // Forms send empty fields, which do not filter.
        values.retain(|value| !value.is_empty());
        Ok(values)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, PageError> {
        Ok(self.take(name, 1)?.pop())
    }

    /// Returns the text filter of a parameter.
    pub(super) fn search(&mut self, name: &str) -> Result<Option<Text>, PageError> {
        Ok(self.text(name)?.as_deref().map(Text::new))
    }

    pub(super) fn attributes(&mut self) -> Result<Vec<Attribute>, PageError> {
        let values = self.take("attribute", MAX_ATTRIBUTES)?;
        let attributes = values.iter().map(|value| Attribute::parse(value));
        attributes
            .collect::<Result<_, _>>()
            .map_err(|problem| PageError::parameter("attribute", problem))
    }

    /// Returns the query. Digits of a trace id as `text` find the trace, too, so they become a part of the query.
    pub(super) fn query(&mut self, subject: Subject) -> Result<Option<SearchQuery>, PageError> {
        let query = self.text("query")?.filter(|query| !query.trim().is_empty());
        let query = query
            .map(|query| parse_query(&query, subject))
            .transpose()
            .map_err(|error| PageError::parameter("query", error.to_string()))?;
        let text = self.given.iter().find(|(name, _)| name == "text");
        let text = text.and_then(|(_, text)| Some((text, TraceId::from_hex(text.trim())?)));
        let Some((text, id)) = text else {
            return Ok(query);
        };
        let by_text = SearchQuery::text_or_trace(text.trim(), id);
        self.take("text", 1)?;
        Ok(Some(match query {
            Some(query) => query.and(by_text),
            None => by_text,
        }))
    }

    /// Returns the order of a list and the position in it.
    pub(super) fn sort(&mut self) -> Result<Option<(Sort, Option<Position>)>, PageError> {
        let problem = "must be `start`, `duration`, `spans`, `errors`, `logs`, `services`, `name` or `service`, \
                       with `-` before it for descending order";
        let Some(sort) = self.parsed("sort", problem, Sort::parse)? else {
            return Ok(None);
        };
        let problem = "must be the value of `next` in an earlier response in the same order";
        let after = self.parsed("before", problem, |text| Position::parse(text, sort))?;
        Ok(Some((sort, after)))
    }

    /// Returns the values of a parameter that may be repeated.
    pub(super) fn repeated(&mut self, name: &str) -> Result<Vec<String>, PageError> {
        self.take(name, MAX_ATTRIBUTES)
    }

    /// Returns the parsed value of a parameter; `problem` describes the valid values.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        problem: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, PageError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(PageError::parameter(name, problem)),
        }
    }

    pub(super) fn limit(&mut self) -> Result<usize, PageError> {
        self.limit_or(DEFAULT_LIMIT)
    }

    pub(super) fn limit_or(&mut self, default: usize) -> Result<usize, PageError> {
        let limit = self.parsed("limit", "must be a number from 1 to 500", |text| {
            text.parse().ok().filter(|limit| LIMITS.contains(limit))
        })?;
        Ok(limit.unwrap_or(default))
    }

    /// Returns a position in a list: the value of `next` in an earlier response, or a `sequence`.
    pub(super) fn cursor<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, PageError> {
        self.parsed(name, "must be a position from an earlier response", |text| {
            text.parse().ok()
        })
    }

    pub(super) fn trace_id(&mut self) -> Result<Option<TraceId>, PageError> {
        self.id_of_trace("trace_id")
    }

    pub(super) fn id_of_trace(&mut self, name: &str) -> Result<Option<TraceId>, PageError> {
        self.parsed(
            name,
            "must be 32 hexadecimal digits, not all zero",
            TraceId::from_hex,
        )
    }

    pub(super) fn span_id(&mut self) -> Result<Option<SpanId>, PageError> {
        self.parsed(
            "span_id",
            "must be 16 hexadecimal digits, not all zero",
            SpanId::from_hex,
        )
    }

    /// Returns a duration like `250us`, `10ms` or `1.5s`, in nanoseconds.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<u64>, PageError> {
        self.parsed(
            name,
            "must be a duration like `250us`, `10ms` or `1.5s`",
            |text| nanoseconds(text, &DURATION_UNITS),
        )
    }

    /// Returns the length of a time window that ends now, in nanoseconds.
    pub(super) fn window(&mut self) -> Result<u64, PageError> {
        let problem = "must be a duration like `30s`, `15m`, `2h` or `1d`, of at least one second";
        let window = self.parsed("window", problem, |text| {
            nanoseconds(text, &AGE_UNITS).filter(|age| *age >= 1_000_000_000)
        })?;
        Ok(window.unwrap_or(DEFAULT_WINDOW))
    }

    /// Returns the start of a selection of problems: a timestamp, or the word `restart`.
    pub(super) fn since(&mut self) -> Result<Since, PageError> {
        let restart = ("since".to_owned(), "restart".to_owned());
        if self.given.contains(&restart) {
            self.take("since", 1)?;
            return Ok(Since::Restart);
        }
        Ok(self.timestamp("since")?.map_or(Since::Ever, Since::Time))
    }

    /// Returns a timestamp in nanoseconds since 1970, given as an age, as nanoseconds, or in RFC 3339.
    pub(super) fn timestamp(&mut self, name: &str) -> Result<Option<u64>, PageError> {
        let now = self.now;
        self.parsed(
            name,
            "must be an RFC 3339 timestamp, nanoseconds since 1970, or an age like `15m`",
            |text| {
                let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).ok();
                let age = nanoseconds(text, &AGE_UNITS);
                age.map(|age| now.saturating_sub(age))
                    .or_else(|| text.parse().ok())
                    .or_else(|| Timestamp::from_str(text).ok().and_then(nanos))
            },
        )
    }
}
