//! The parameters of a request, read into what the store is asked for. What cannot be read, or is not known,
//! is refused by name: a misspelt filter must not show everything.

use std::str::FromStr;

use axum::extract::RawPathParams;
use jiff::Timestamp;

use super::Refusal;
use crate::store::{Attribute, SpanId, Text, TraceId, now};

/// How many entries a list has at most, and unless told.
const LIMITS: std::ops::RangeInclusive<usize> = 1..=500;
const DEFAULT_LIMIT: usize = 50;

/// How many attributes may be asked for.
const MAX_ATTRIBUTES: usize = 16;

/// The one that may come more than once.
const REPEATABLE: &str = "attribute";

/// Those that may be relative to now.
const BY_THE_CLOCK: [&str; 2] = ["from", "to"];

/// What was asked, as text.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    by_the_clock: bool,
    now: u64,
}

impl Parameters {
    /// From the address, of which the query may have `takes`.
    pub(super) fn read(path: &RawPathParams, query: Option<&str>, takes: &[&str]) -> Result<Self, Refusal> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !takes.contains(&&*name) {
                return Err(Refusal::parameter(&name, "is not known here"));
            }
            let times = given.iter().filter(|(known, _)| *known == name).count();
            if times >= if name == REPEATABLE { MAX_ATTRIBUTES } else { 1 } {
                return Err(Refusal::parameter(&name, "is given too often"));
            }
            // An empty field of a form is no filter.
            if !value.is_empty() {
                given.push((name.into_owned(), value.into_owned()));
            }
        }
        let by_the_clock = given.iter().any(|(name, _)| BY_THE_CLOCK.contains(&&**name));
        given.extend(
            path.iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        Ok(Self {
            given,
            by_the_clock,
            now: now(),
        })
    }

    /// Whether what is asked for changes with time.
    pub(super) fn go_by_the_clock(&self) -> bool {
        self.by_the_clock
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

    /// A text to search for.
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

    /// Where in a list to go on, as `next` said.
    pub(super) fn cursor(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parsed(name, "must be what an answer gave", |text| text.parse().ok())
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

    /// One of `choices`.
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

    /// A duration like `250us`, `10ms` or `1.5s`, in nanoseconds.
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

    /// A window of time that ends now, in nanoseconds.
    pub(super) fn window(&self) -> Result<Option<u64>, Refusal> {
        self.parsed(
            "window",
            "must be an age like `30s`, `15m`, `2h` or `1d`, one second or more",
            |text| age(text).filter(|age| *age >= 1_000_000_000),
        )
    }

    /// A moment: an age, nanoseconds since 1970, or RFC 3339.
    pub(super) fn timestamp(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parsed(
            name,
            "must be an RFC 3339 moment, nanoseconds since 1970, or an age like `15m`",
            |text| {
                let ago = |age| self.now.saturating_sub(age);
                let at = |moment: Timestamp| u64::try_from(moment.as_nanosecond()).ok();
                text.parse()
                    .ok()
                    .or_else(|| age(text).map(ago))
                    .or_else(|| Timestamp::from_str(text).ok().and_then(at))
            },
        )
    }
}

fn age(text: &str) -> Option<u64> {
    nanoseconds(text, &[("s", 1e9), ("m", 6e10), ("h", 3.6e12), ("d", 8.64e13)])
}

/// A number that is not negative with one of `units`.
fn nanoseconds(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    // Saturates at the greatest.
    Some((number * size).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_units() {
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
