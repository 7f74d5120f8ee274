//! Query and path parameters of a request. Unknown and invalid parameters are errors, because a misspelt
//! filter must not match everything.

use std::str::FromStr;

use axum::extract::RawPathParams;
use jiff::Timestamp;

use super::refusal::Refusal;
use crate::store::{Attribute, SpanId, Text, TraceId, now};

/// Range of `limit`.
const LIMITS: std::ops::RangeInclusive<usize> = 1..=500;
/// Default of `limit`.
const DEFAULT_LIMIT: usize = 50;

/// Maximum number of attribute filters.
const MAX_ATTRIBUTES: usize = 16;

/// Parameter that may be repeated.
const REPEATABLE: &str = "attribute";

/// Parameters that may be relative to the current time.
const RELATIVE_TIMES: [&str; 2] = ["from", "to"];

/// Parameters of a request as text.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    now: u64,
}

impl Parameters {
    /// Reads the parameters from the path and the query.
    ///
    /// # Errors
    /// The query has a parameter that is not in `known`, or a repeated one.
    pub(super) fn read(path: &RawPathParams, query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Refusal::parameter(&name, "is not a parameter of this page"));
            }
            let times = given.iter().filter(|(given, _)| *given == name).count();
            if times >= if name == REPEATABLE { MAX_ATTRIBUTES } else { 1 } {
                return Err(Refusal::parameter(&name, "is repeated too often"));
            }
            // Forms send empty fields; they do not filter.
            if !value.is_empty() {
                given.push((name.into_owned(), value.into_owned()));
            }
        }
        given.extend(
            path.iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        Ok(Self { given, now: now() })
    }

    /// Whether the parameters depend on the current time.
    pub(super) fn is_time_dependent(&self) -> bool {
        self.given
            .iter()
            .any(|(name, _)| RELATIVE_TIMES.contains(&&**name))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the text filter of a parameter.
    pub(super) fn search(&self, name: &str) -> Option<Text> {
        self.text(name).map(Text::new)
    }

    pub(super) fn attributes(&self) -> Vec<Attribute> {
        self.all(REPEATABLE).map(Attribute::new).collect()
    }

    fn parsed<T>(
        &self,
        name: &str,
        problem: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        parse(text)
            .map(Some)
            .ok_or_else(|| Refusal::parameter(name, problem))
    }

    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        let limit = self.parsed("limit", "must be a number from 1 to 500", |text| {
            text.parse().ok().filter(|limit| LIMITS.contains(limit))
        })?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT))
    }

    /// Returns a position in a list, taken from `next` of an earlier answer.
    pub(super) fn cursor(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parsed(name, "must be a position from an earlier answer", |text| {
            text.parse().ok()
        })
    }

    pub(super) fn trace_id(&self) -> Result<Option<TraceId>, Refusal> {
        self.parsed(
            "trace_id",
            "must be 32 hexadecimal digits, not all zero",
            TraceId::from_hex,
        )
    }

    pub(super) fn span_id(&self) -> Result<Option<SpanId>, Refusal> {
        self.parsed(
            "span_id",
            "must be 16 hexadecimal digits, not all zero",
            SpanId::from_hex,
        )
    }

    /// Returns the value of the choice that the parameter names.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        problem: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Refusal> {
        self.parsed(name, problem, |text| {
            choices
                .iter()
                .find(|(choice, _)| *choice == text)
                .map(|(_, value)| *value)
        })
    }

    /// Returns a duration like `250us`, `10ms` or `1.5s`, in nanoseconds.
    pub(super) fn duration(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parsed(
            name,
            "must be a duration like `250us`, `10ms` or `1.5s`",
            |text| {
                nanoseconds(
                    text,
                    &[
                        ("ns", 1e0),
                        ("us", 1e3),
                        ("µs", 1e3),
                        ("ms", 1e6),
                        ("s", 1e9),
                        ("m", 6e10),
                    ],
                )
            },
        )
    }

    /// Returns the length of a time window that ends now, in nanoseconds.
    pub(super) fn window(&self) -> Result<Option<u64>, Refusal> {
        self.parsed(
            "window",
            "must be an age like `30s`, `15m`, `2h` or `1d`, one second or more",
            |text| age(text).filter(|age| *age >= 1_000_000_000),
        )
    }

    /// Returns a timestamp in nanoseconds since 1970, given as an age, as nanoseconds, or in RFC 3339.
    pub(super) fn timestamp(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parsed(
            name,
            "must be an RFC 3339 timestamp, nanoseconds since 1970, or an age like `15m`",
            |text| {
                let ago = |age| self.now.saturating_sub(age);
                let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).ok();
                text.parse()
                    .ok()
                    .or_else(|| age(text).map(ago))
                    .or_else(|| Timestamp::from_str(text).ok().and_then(nanos))
            },
        )
    }
}

fn age(text: &str) -> Option<u64> {
    nanoseconds(text, &[("s", 1e9), ("m", 6e10), ("h", 3.6e12), ("d", 8.64e13)])
}

/// Parses a non-negative number followed by one of `units`.
fn nanoseconds(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    // The conversion saturates.
    Some((number * size).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_their_units() {
        let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
        for (text, expected) in [
            ("250us", Some(250_000)),
            ("10ms", Some(10_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0s", Some(0)),
            ("99999999999999999999s", Some(u64::MAX)),
            ("10", None),
            ("ms", None),
            ("-1s", None),
            ("1e3s", None),
            ("1.2.3s", None),
            ("10 ms", None),
            ("10h", None),
            ("infs", None),
            ("", None),
        ] {
            assert_eq!(nanoseconds(text, &units), expected, "{text}");
        }
    }
}
