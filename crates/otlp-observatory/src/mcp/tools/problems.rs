//! `find_problems`: the services, and what is wrong with them.

use std::collections::BTreeMap;

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

/// Maximum number of problems; what fits into an answer of the largest size.
const LIMIT: usize = 500;

/// Maximum length of the title of a problem, in characters.
const MAX_TITLE: usize = 200;

/// Maximum length of the names of all services together, in characters.
const MAX_SERVICES: usize = 300;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindProblems {
    /// Only what was seen since: an age such as 15m, an RFC 3339 time, or "restart" for the latest start of each service
    /// (default: everything in memory)
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
    total: u64,
    problems: Vec<Problem>,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Problem {
    kind: String,
    title: String,
    service: String,
    count: u64,
    traces: u64,
    new: bool,
    last_seen_unix_nano: String,
    max_ns: f64,
    trace_ids: Vec<String>,
    span_id: Option<String>,
}

#[derive(Deserialize)]
struct Service {
    service: String,
    started_unix_nano: String,
    restarted: bool,
}

impl Query for FindProblems {
    const NAME: &'static str = "find_problems";
    const TITLE: &'static str = "Find problems";
    const DESCRIPTION: &'static str = "\
Start here. Names what is wrong in the telemetry of all services: errors grouped by type and place, failed tasks, repeated \
statements (N+1), slow statements, requests, calls and tasks, retries, exhausted pools, wrong statuses, lost parents, \
clocks that disagree, error logs. One line each: kind, service, what and where, number of occurrences, longest duration, \
and the newest trace with its span; the largest of each kind first. Next: get_trace with that trace id shows the cause.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let given = parameters([
            ("since", self.since),
            ("service", self.service),
            ("kind", self.kind),
            ("limit", Some(LIMIT.to_string())),
        ]);
        let found: Found = source.get(&["problems"], &given).await?;
        let head = match found.total {
            0 => "No problems found; find_traces lists all traces.".to_owned(),
            total => format!("{}.", count(total, "problem")),
        };
        let mut answer = Answer::new(self.max_bytes, &head);
        let services: Vec<_> = found.services.iter().map(Service::described).collect();
        answer.line(&format!(
            "services: {}",
            clipped(&services.join(", "), MAX_SERVICES)
        ));
        let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
        for problem in &found.problems {
            if !answer.line(&problem.line()) {
                *left_out.entry(&problem.kind).or_default() += 1;
            }
        }
        let mut foot = String::new();
        if !left_out.is_empty() {
            let kinds: Vec<_> = left_out
                .iter()
                .map(|(kind, number)| format!("{number} {kind}"))
                .collect();
            foot = format!(
                "Left out: {}. Pass kind or service, or a larger max_bytes.\n",
                kinds.join(", ")
            );
        }
        if !found.complete {
            foot.push_str("The search ran out of time before the oldest telemetry.\n");
        }
        Ok(answer.finish(&foot))
    }
}

impl Problem {
    fn line(&self) -> String {
        let mut line = format!(
            "{}{}  {}  {}  {}x",
            if self.new { "new " } else { "" },
            self.kind,
            clipped(&self.service, MAX_TITLE),
            clipped(&self.title, MAX_TITLE),
            self.count,
        );
        if self.traces > 1 {
            line.push_str(&format!(" in {} traces", self.traces));
        }
        if self.max_ns > 0.0 {
            line.push_str(&format!(", longest {}", duration(self.max_ns)));
        }
        line.push_str(&format!(", last {}", timestamp(&self.last_seen_unix_nano)));
        if let Some(trace) = self.trace_ids.first() {
            line.push_str(&format!("  trace {trace}"));
        }
        if let Some(span) = &self.span_id {
            line.push_str(&format!(" #{span}"));
        }
        line
    }
}

impl Service {
    fn described(&self) -> String {
        let verb = if self.restarted { "restarted" } else { "first seen" };
        format!("{} ({verb} {})", self.service, timestamp(&self.started_unix_nano))
    }
}
