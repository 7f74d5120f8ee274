//! `find_traces`: one line for each trace.

use schemars::JsonSchema;
use serde::Deserialize;

use super::query::{Query, parameters};
use crate::{
    mcp::{
        answer::{Answer, clipped},
        source::{Failure, Source},
    },
    text::{count, duration, timestamp},
};

/// Default of `limit`.
const LIMIT: u16 = 20;

/// Maximum length of the name of a root span, in characters.
const MAX_NAME: usize = 120;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindTraces {
    /// Filter, for example: service=shop !name~health status>=500 dur>100ms. Terms are key, operator (= != ~ !~ < <= > >=)
    /// and value; keys are service, name, kind, status (error, ok or an HTTP status code), dur, error, trace.dur, spans,
    /// errors, or any attribute such as http.route; a word alone is searched in all text; "or", "!" and brackets work
    query: Option<String>,
    /// Start of the time range: an age such as 15m, or an RFC 3339 time
    from: Option<String>,
    /// End of the time range
    to: Option<String>,
    /// start, duration, spans or errors; with "-" for descending (default -start)
    sort: Option<String>,
    /// Maximum number of traces, 1 to 500 (default 20)
    limit: Option<u16>,
    /// Value of "before" from an earlier answer, for the traces after it
    before: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Found {
    traces: Vec<Summary>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Summary {
    trace_id: String,
    root: Root,
    start_unix_nano: String,
    duration_ns: f64,
    spans: u64,
    errors: u64,
    logs: u64,
    dropped_spans: u64,
}

#[derive(Deserialize)]
struct Root {
    service: String,
    name: String,
}

impl Query for FindTraces {
    const NAME: &'static str = "find_traces";
    const TITLE: &'static str = "Find traces";
    const DESCRIPTION: &'static str = "\
Lists traces (one per request or task): time, trace id, duration, status, service and name of the first span, numbers of \
spans, errors and logs. Use it for the slowest (sort=-duration) or failed (query: status=error) requests, or those of a \
route. Next: get_trace with a trace id. To be told what is wrong, call find_problems first.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let limit = self.limit.unwrap_or(LIMIT);
        let given = parameters([
            ("query", self.query),
            ("from", self.from),
            ("to", self.to),
            ("sort", self.sort),
            ("before", self.before),
            ("limit", Some(limit.to_string())),
        ]);
        let found: Found = source.get(&["traces"], &given).await?;
        let mut answer = Answer::new(self.max_bytes, &count(found.traces.len() as u64, "trace"));
        for trace in &found.traces {
            answer.line(&trace.line());
        }
        let mut foot = String::new();
        if answer.cut() > 0 {
            foot = format!(
                "{} left out: ask for a larger max_bytes, or narrow the query.\n",
                answer.cut()
            );
        } else if let Some(next) = &found.next {
            foot = format!("There are more: pass before={next:?}.\n");
        }
        Ok(answer.finish(&foot))
    }
}

impl Summary {
    fn line(&self) -> String {
        let mut line = format!(
            "{}  {}  {}  {}  {}  {}  {}",
            timestamp(&self.start_unix_nano),
            self.trace_id,
            duration(self.duration_ns),
            if self.errors == 0 { "ok" } else { "ERROR" },
            clipped(&self.root.service, MAX_NAME),
            clipped(&self.root.name, MAX_NAME),
            count(self.spans, "span"),
        );
        for (number, noun) in [
            (self.errors, "error"),
            (self.logs, "log"),
            (self.dropped_spans, "dropped span"),
        ] {
            if number > 0 {
                line.push_str(&format!(", {}", count(number, noun)));
            }
        }
        line
    }
}
