//! `compare`: two traces by their spans, or the time before and after a change by route and task.

use std::cmp::Reverse;

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

/// Maximum length of a name, in characters.
const MAX_NAME: usize = 120;

/// Maximum indentation.
const MAX_DEPTH: usize = 20;

/// Relative difference of durations that counts as none.
const ALIKE: f64 = 0.05;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Compare {
    /// Id of a trace, to be compared with b
    a: Option<String>,
    /// Id of the other trace
    b: Option<String>,
    /// Moment of a change, instead of traces: an age such as 10m, or an RFC 3339 time
    at: Option<String>,
    /// Length of the time before, and of the time after the moment (default 5m)
    window: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Found {
    Traces(Traces),
    Times(Times),
}

#[derive(Deserialize)]
struct Traces {
    a: Summary,
    b: Summary,
    spans: Vec<Row>,
    omitted: u64,
}

#[derive(Deserialize)]
struct Summary {
    trace_id: String,
    duration_ns: f64,
    spans: u64,
    errors: u64,
}

#[derive(Deserialize)]
struct Row {
    depth: usize,
    service: String,
    name: String,
    a: Option<Side>,
    b: Option<Side>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Side {
    count: u64,
    errors: u64,
    total_ns: f64,
}

#[derive(Deserialize)]
struct Times {
    at_unix_nano: String,
    before_seconds: f64,
    after_seconds: f64,
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    service: String,
    kind: String,
    name: String,
    before: Option<Figures>,
    after: Option<Figures>,
    p95_change: Option<f64>,
}

#[derive(Deserialize)]
struct Figures {
    count: u64,
    errors: u64,
    p50_ns: Option<f64>,
    p95_ns: Option<f64>,
}

impl Query for Compare {
    const NAME: &'static str = "compare";
    const TITLE: &'static str = "Compare";
    const DESCRIPTION: &'static str = "\
Shows what a change did. With at: requests and tasks by route, before and after that moment (counts, errors, p50 and p95). \
With a and b: two traces by their spans, such as a slow and a fast request of one route. If not all fit, the largest \
differences are kept.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        let given = parameters([
            ("a", self.a),
            ("b", self.b),
            ("at", self.at),
            ("window", self.window),
        ]);
        Ok(match source.get(&["compare"], &given).await? {
            Found::Traces(traces) => traces.answer(self.max_bytes),
            Found::Times(times) => times.answer(self.max_bytes),
        })
    }
}

impl Traces {
    fn answer(&self, max_bytes: Option<usize>) -> String {
        let (changed, alike): (Vec<_>, Vec<_>) = self.spans.iter().partition(|row| row.differs());
        let mut answer = Answer::new(
            max_bytes,
            &format!(
                "a: {}. b: {}. {} of {} differ.",
                self.a.described(),
                self.b.described(),
                changed.len(),
                count((changed.len() + alike.len()) as u64 + self.omitted, "place"),
            ),
        );
        let lines: Vec<_> = changed.iter().map(|row| row.line()).collect();
        let mut order: Vec<usize> = (0..changed.len()).collect();
        order.sort_by(|&one, &other| {
            changed[other]
                .difference()
                .abs()
                .total_cmp(&changed[one].difference().abs())
        });
        answer.best(&lines, order);
        let foot = foot(answer.cut());
        answer.finish(&foot)
    }
}

impl Summary {
    fn described(&self) -> String {
        format!(
            "trace {}, {}, {}, {}",
            self.trace_id,
            duration(self.duration_ns),
            count(self.spans, "span"),
            count(self.errors, "error")
        )
    }
}

impl Row {
    fn sides(&self) -> (Side, Side) {
        (self.a.unwrap_or_default(), self.b.unwrap_or_default())
    }

    /// Returns the time that b takes beyond a, in nanoseconds.
    fn difference(&self) -> f64 {
        let (a, b) = self.sides();
        b.total_ns - a.total_ns
    }

    fn differs(&self) -> bool {
        let (a, b) = self.sides();
        (a.count, a.errors) != (b.count, b.errors)
            || self.difference().abs() > ALIKE * a.total_ns.max(b.total_ns)
    }

    fn line(&self) -> String {
        let side = |side: Option<Side>| match side {
            None => "none".to_owned(),
            Some(Side {
                count,
                errors: 0,
                total_ns,
            }) => format!("{count}x {}", duration(total_ns)),
            Some(Side {
                count,
                errors,
                total_ns,
            }) => {
                format!(
                    "{count}x {} ({})",
                    duration(total_ns),
                    self::count(errors, "error")
                )
            }
        };
        let sign = if self.difference() < 0.0 { "-" } else { "+" };
        format!(
            "{}{}: {}  a {}, b {}  {sign}{}",
            "  ".repeat(self.depth.min(MAX_DEPTH)),
            clipped(&self.service, MAX_NAME),
            clipped(&self.name, MAX_NAME),
            side(self.a),
            side(self.b),
            duration(self.difference().abs()),
        )
    }
}

impl Times {
    fn answer(&self, max_bytes: Option<usize>) -> String {
        let head = format!(
            "{} in {:.0} s before and {:.0} s after {}.",
            count(self.operations.len() as u64, "operation"),
            self.before_seconds,
            self.after_seconds,
            timestamp(&self.at_unix_nano),
        );
        let mut answer = Answer::new(max_bytes, &head);
        let lines: Vec<_> = self.operations.iter().map(Operation::line).collect();
        let mut order: Vec<usize> = (0..lines.len()).collect();
        let importance = |index: usize| {
            let operation = &self.operations[index];
            let errors = |figures: &Option<Figures>| figures.as_ref().map_or(0, |figures| figures.errors);
            let change = operation.p95_change.unwrap_or_default().abs();
            (
                errors(&operation.after).saturating_sub(errors(&operation.before)),
                (change * 1e3) as u64,
            )
        };
        order.sort_by_key(|&index| Reverse(importance(index)));
        answer.best(&lines, order);
        let foot = foot(answer.cut());
        answer.finish(&foot)
    }
}

impl Operation {
    fn line(&self) -> String {
        let side = |figures: &Option<Figures>| match figures {
            None => "none".to_owned(),
            Some(figures) => format!(
                "{}x, {}, p50 {}, p95 {}",
                figures.count,
                count(figures.errors, "error"),
                duration(figures.p50_ns.unwrap_or_default()),
                duration(figures.p95_ns.unwrap_or_default()),
            ),
        };
        let change = self
            .p95_change
            .map(|change| format!("  p95 {:+.0} %", change * 100.0));
        format!(
            "{}  {} {}  before {}; after {}{}",
            clipped(&self.service, MAX_NAME),
            self.kind,
            clipped(&self.name, MAX_NAME),
            side(&self.before),
            side(&self.after),
            change.unwrap_or_default(),
        )
    }
}

fn foot(cut: usize) -> String {
    match cut {
        0 => String::new(),
        cut => format!(
            "{} with smaller differences left out: pass a larger max_bytes.\n",
            count(cut as u64, "line")
        ),
    }
}
