//! `find_logs`: log records in chronological order, around a moment or of a trace.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::query::{Query, parameters};
use crate::{
    mcp::{
        answer::{Answer, attribute, clipped},
        source::{Failure, Source},
    },
    text::{count, timestamp, value},
};

/// Default of `limit`.
const LIMIT: u16 = 100;

/// Largest `limit`; for `around`, which keeps the nearest records.
const MAX_LIMIT: u16 = 500;

/// Default of `within`.
const WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Maximum length of a message, in characters.
const MAX_MESSAGE: usize = 400;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindLogs {
    /// Filter, for example: level>=warn service=shop body~"time-out"; a word alone is searched in all text
    query: Option<String>,
    /// Trace whose records are wanted
    trace_id: Option<String>,
    /// Moment of interest, such as the time of a trace or record: records before and after it
    around: Option<String>,
    /// Longest distance from "around" (default 5s), such as 500ms or 1m
    within: Option<String>,
    /// Start of the time range: an age such as 15m, or an RFC 3339 time
    from: Option<String>,
    /// End of the time range
    to: Option<String>,
    /// Maximum number of records, 1 to 500 (default 100)
    limit: Option<u16>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Found {
    logs: Vec<Record>,
    next: Option<String>,
}

/// A log record in the JSON of the pages.
#[derive(Deserialize)]
pub(super) struct Record {
    pub(super) time_unix_nano: String,
    service: String,
    level: String,
    body: Value,
    event_name: String,
    attributes: Map<String, Value>,
    trace_id: Option<String>,
    pub(super) span_id: Option<String>,
}

impl Query for FindLogs {
    const NAME: &'static str = "find_logs";
    const TITLE: &'static str = "Find log records";
    const DESCRIPTION: &'static str = "\
Lists log records in chronological order: of a trace (trace_id), around a moment (around), or that fit a query. \
Repetitions are one line. If not all fit into the answer, the newest (or the nearest to the moment) are kept.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let moment = self.around.as_deref().map(moment).transpose()?;
        let (mut from, mut to, mut limit) = (self.from, self.to, self.limit.unwrap_or(LIMIT));
        if let Some(moment) = moment {
            if from.is_some() || to.is_some() {
                return Err("arguments: pass either around or from and to".to_owned());
            }
            let within = match &self.within {
                None => WITHIN,
                Some(text) => text
                    .parse()
                    .map_err(|_| "arguments: within must be a duration such as 5s")?,
            };
            let edge = |edge: Result<Timestamp, jiff::Error>| edge.ok().map(|edge| edge.to_string());
            from = edge(moment.checked_sub(within));
            to = edge(moment.checked_add(within));
            limit = MAX_LIMIT;
        }
        let given = parameters([
            ("query", self.query),
            ("trace_id", self.trace_id),
            ("from", from),
            ("to", to),
            ("limit", Some(limit.to_string())),
        ]);
        let found: Found = source.get(&["logs"], &given).await?;
        let mut lines = joined(&found.logs);
        lines.reverse();

        let mut answer = Answer::new(self.max_bytes, &count(found.logs.len() as u64, "record"));
        let mut order: Vec<usize> = (0..lines.len()).collect();
        let distance = |line: &Line| moment.map(|moment| moment.as_nanosecond().abs_diff(line.time));
        order.sort_by_key(|&line| (distance(&lines[line]), Reverse(line)));
        let texts: Vec<_> = lines.iter().map(Line::text).collect();
        answer.best(&texts, order);

        let mut foot = String::new();
        if answer.cut() > 0 {
            let kept = if moment.is_some() {
                "nearest to the moment"
            } else {
                "newest"
            };
            foot = format!(
                "The {kept} are shown, {} left out: narrow the query or the time range, or pass a larger max_bytes.\n",
                count(answer.cut() as u64, "line")
            );
        } else if found.next.is_some() {
            foot = "There are older records: pass an earlier \"to\", or a larger limit.\n".to_owned();
        }
        Ok(answer.finish(&foot))
    }
}

/// Parses a time as the answers show it.
fn moment(text: &str) -> Result<Timestamp, Failure> {
    let parsed = match text.parse() {
        Ok(nanoseconds) => Timestamp::from_nanosecond(nanoseconds),
        Err(_) => text.parse(),
    };
    parsed.map_err(|_| "arguments: around must be a time such as 2026-11-22T10:21:47.097Z".to_owned())
}

/// One or several records that say the same.
struct Line {
    time: i128,
    first: String,
    said: String,
    repeated: usize,
}

impl Line {
    fn text(&self) -> String {
        match self.repeated {
            1 => format!("{}  {}", timestamp(&self.first), self.said),
            times => format!(
                "{}  {}  ({times} times in a row)",
                timestamp(&self.first),
                self.said
            ),
        }
    }
}

/// Joins neighbours that say the same; the last of them gives the time.
fn joined(records: &[Record]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for record in records {
        let said = record.said();
        match lines.last_mut() {
            Some(line) if line.said == said => {
                line.repeated += 1;
                line.first.clone_from(&record.time_unix_nano);
            }
            _ => lines.push(Line {
                time: record.time_unix_nano.parse().unwrap_or_default(),
                first: record.time_unix_nano.clone(),
                said,
                repeated: 1,
            }),
        }
    }
    lines
}

impl Record {
    /// Returns level, service, message, attributes and trace.
    fn said(&self) -> String {
        let mut said = format!("{}  {}  {}", self.level, self.service, self.message());
        if let Some(trace) = &self.trace_id {
            said.push_str(&format!("  trace={trace}"));
        }
        said
    }

    /// Returns event name, body and attributes.
    pub(super) fn message(&self) -> String {
        let mut parts = Vec::new();
        if !self.event_name.is_empty() {
            parts.push(clipped(&self.event_name, MAX_MESSAGE).into_owned());
        }
        if !self.body.is_null() {
            parts.push(clipped(&value(&self.body), MAX_MESSAGE).into_owned());
        }
        parts.extend(
            self.attributes
                .iter()
                .filter_map(|(key, value)| attribute(key, value)),
        );
        parts.join("  ")
    }

    /// Returns level and message.
    pub(super) fn short(&self) -> String {
        format!("{}  {}", self.level, self.message())
    }
}
