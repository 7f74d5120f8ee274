//! `find_problems`: the services, and what is wrong with them.

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

/// Maximum length of the title of a problem, in characters.
const MAX_TITLE: usize = 300;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindProblems {
    /// Only what was seen since: an age such as 15m, an RFC 3339 time, or "restart" (default: everything in memory)
    since: Option<String>,
    /// Name of a service
    service: Option<String>,
    /// Kind of problem, as in an earlier answer, such as error or n_plus_one
    kind: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Found {
    complete: bool,
    problems: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    kind: String,
    title: String,
    service: String,
    count: u64,
    traces: u64,
    #[serde(default)]
    new: bool,
    last_seen_unix_nano: String,
    #[serde(default)]
    total_ns: f64,
    #[serde(default)]
    max_ns: f64,
    trace_ids: Vec<String>,
}

impl Query for FindProblems {
    const NAME: &'static str = "find_problems";
    const TITLE: &'static str = "Find problems";
    const DESCRIPTION: &'static str = "\
Start here. Names what is wrong in the telemetry of all services: errors grouped by type and place, repeated statements \
(N+1), slow statements, retries, failed or slow tasks, broken traces; the most important first, each with its number of \
occurrences and up to three trace ids. Next: get_trace with one of the trace ids shows the cause.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let given = parameters([
            ("since", self.since),
            ("service", self.service),
            ("kind", self.kind),
        ]);
        let found: Found = source.get(&["problems"], &given).await?;
        let head = match found.problems.len() {
            0 => "No problems found. find_traces lists all traces.".to_owned(),
            number => count(number as u64, "problem"),
        };
        let mut answer = Answer::new(self.max_bytes, &head);
        for problem in &found.problems {
            answer.line(&problem.line());
        }
        let mut foot = String::new();
        if answer.cut() > 0 {
            foot = format!(
                "{} left out: pass kind or service, or a larger max_bytes.\n",
                count(answer.cut() as u64, "problem")
            );
        }
        if !found.complete {
            foot.push_str(
                "The search ran out of time before the oldest traces: pass since to search less.\n",
            );
        }
        Ok(answer.finish(&foot))
    }
}

impl Problem {
    fn line(&self) -> String {
        let mut line = format!(
            "{}{}  {}  {}  {}× in {}",
            if self.new { "new " } else { "" },
            self.kind,
            clipped(&self.service, MAX_TITLE),
            clipped(&self.title, MAX_TITLE),
            self.count,
            count(self.traces, "trace"),
        );
        if self.max_ns > 0.0 {
            line.push_str(&format!(
                ", total {}, longest {}",
                duration(self.total_ns),
                duration(self.max_ns)
            ));
        }
        line.push_str(&format!(", last {}", timestamp(&self.last_seen_unix_nano)));
        if !self.trace_ids.is_empty() {
            line.push_str(&format!("  traces {}", self.trace_ids.join(" ")));
        }
        line
    }
}
