//! Comparison of two traces: their spans by path from the root, and of two spans of time: requests and tasks by route.

use std::{collections::HashMap, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use serde::Serialize;

use super::{
    fair_lock::FairLock,
    ids::{SpanId, UnixNano},
    latency::{Latencies, Percentiles, most_frequent},
    search::TraceSummary,
    source::Source,
    span_class::{Role, SpanClass},
    traces::Traces,
    waterfall::StoredSpan,
};

/// Maximum number of rows.
const MAX_ROWS: usize = 500;

/// Maximum depth of rows; deeper spans belong to the row at this depth.
const MAX_DEPTH: usize = 100;

/// Trace to compare, with its spans in waterfall order.
pub(super) struct Compared {
    pub(super) summary: TraceSummary,
    pub(super) sources: Vec<Source>,
    pub(super) spans: Vec<StoredSpan>,
}

/// Two traces with their spans by path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TraceComparison {
    a: TraceSummary,
    b: TraceSummary,
    /// Parents before their children.
    spans: Vec<SpanRow>,
    /// Number of rows beyond the limit.
    omitted: usize,
}

/// Spans with the same names from the root down.
#[derive(Clone, Debug, Serialize)]
struct SpanRow {
    depth: usize,
    service: Arc<str>,
    name: String,
    a: Option<Side>,
    b: Option<Side>,
}

/// Spans of one trace in a row.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Side {
    count: usize,
    errors: usize,
    /// Sum of the durations.
    total_ns: u64,
    /// First span.
    span_id: Option<SpanId>,
}

/// Rows as a tree.
#[derive(Default)]
struct Tree {
    rows: Vec<SpanRow>,
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
    /// Rows by parent, service and name.
    known: HashMap<(Option<usize>, Arc<str>, String), usize>,
}

/// Compares two traces.
pub(super) fn compare_traces(a: Compared, b: Compared) -> TraceComparison {
    let mut tree = Tree::default();
    tree.add(&a, |row| &mut row.a);
    tree.add(&b, |row| &mut row.b);
    let order = tree.order();
    let omitted = order.len().saturating_sub(MAX_ROWS);
    let rows = order.into_iter().take(MAX_ROWS).map(|row| tree.rows[row].clone());
    TraceComparison {
        spans: rows.collect(),
        a: a.summary,
        b: b.summary,
        omitted,
    }
}

impl Tree {
    /// Adds the spans of a trace.
    fn add(&mut self, trace: &Compared, side: fn(&mut SpanRow) -> &mut Option<Side>) {
        let mut rows = Vec::with_capacity(trace.spans.len());
        for stored in &trace.spans {
            let span = Span::decode(&*stored.encoded).unwrap_or_default();
            let failed = span
                .status
                .as_ref()
                .is_some_and(|status| status.code() == StatusCode::Error);
            let parent = stored.parent.and_then(|parent| rows.get(parent).copied());
            let service = trace.sources[stored.source].service.clone();
            let row = self.row(parent, service, span.name);
            rows.push(row);
            let side = side(&mut self.rows[row]).get_or_insert(Side {
                span_id: Some(stored.id),
                ..Side::default()
            });
            side.count += 1;
            side.errors += usize::from(failed);
            let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
            side.total_ns = side.total_ns.saturating_add(duration);
        }
    }

    fn row(&mut self, parent: Option<usize>, service: Arc<str>, name: String) -> usize {
        let depth = parent.map_or(0, |parent| self.rows[parent].depth + 1);
        if let Some(parent) = parent.filter(|_| depth > MAX_DEPTH) {
            return parent;
        }
        let key = (parent, service, name);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let row = self.rows.len();
        self.rows.push(SpanRow {
            depth,
            service: key.1.clone(),
            name: key.2.clone(),
            a: None,
            b: None,
        });
        self.children.push(Vec::new());
        let siblings = parent.map_or(&mut self.roots, |parent| &mut self.children[parent]);
        siblings.push(row);
        self.known.insert(key, row);
        row
    }

    /// Returns the rows in preorder.
    fn order(&self) -> Vec<usize> {
        let mut open: Vec<_> = self.roots.iter().rev().copied().collect();
        let mut ordered = Vec::with_capacity(self.rows.len());
        while let Some(row) = open.pop() {
            ordered.push(row);
            open.extend(self.children[row].iter().rev());
        }
        ordered
    }
}

/// Two spans of time, before and from a moment, by route and task.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TimeComparison {
    at_unix_nano: UnixNano,
    before_seconds: f64,
    after_seconds: f64,
    /// Most frequent first.
    operations: Vec<OperationRow>,
}

#[derive(Clone, Debug, Serialize)]
struct OperationRow {
    service: Arc<str>,
    kind: OperationKind,
    name: Arc<str>,
    before: Option<Figures>,
    after: Option<Figures>,
    /// Relative change of the rate; null if there is nothing to compare.
    rate_change: Option<f64>,
    p50_change: Option<f64>,
    p95_change: Option<f64>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum OperationKind {
    Request,
    Task,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    count: usize,
    rate: f64,
    errors: usize,
    #[serde(flatten)]
    percentiles: Percentiles,
}

impl Figures {
    fn of(latencies: Latencies, seconds: f64) -> Option<Self> {
        (latencies.count() > 0).then(|| Self {
            count: latencies.count(),
            rate: latencies.count() as f64 / seconds,
            errors: latencies.errors(),
            percentiles: latencies.percentiles(),
        })
    }
}

/// Compares the `window` nanoseconds before `at` with those from `at`, as far as they are before `now`.
pub(super) fn compare_times(traces: &FairLock<Traces>, at: u64, window: u64, now: u64) -> TimeComparison {
    let (start, end) = (at.saturating_sub(window), at.saturating_add(window).min(now));
    let mut operations: HashMap<_, [Latencies; 2]> = HashMap::new();
    {
        let traces = traces.read();
        for span in traces.since(start).flat_map(|trace| &trace.spans) {
            if !(start..=end).contains(&span.effective_end) {
                continue;
            }
            let class = traces.classes.get(span.class);
            if let Role::Request { .. } | Role::Task { .. } = class.role {
                let [before, after] = operations.entry(span.class).or_default();
                let side = if span.effective_end < at { before } else { after };
                side.add(span.duration, span.failed);
            }
        }
        let mut by_name: HashMap<_, [Latencies; 2]> = HashMap::new();
        for (class, [before, after]) in operations {
            let class = traces.classes.get(class);
            let (kind, name) = name_of(class);
            let service = traces.sources.get(class.source).service.clone();
            let [all_before, all_after] = by_name.entry((service, kind, name)).or_default();
            all_before.append(before);
            all_after.append(after);
        }
        drop(traces);
        let seconds = |nanoseconds: u64| (nanoseconds as f64 / 1e9).max(1e-9);
        let before_seconds = seconds(at - start);
        let after_seconds = seconds(end.saturating_sub(at));
        let count = |sides: &[Latencies; 2]| sides[0].count() + sides[1].count();
        TimeComparison {
            at_unix_nano: UnixNano(at),
            before_seconds,
            after_seconds,
            operations: most_frequent(
                by_name,
                MAX_ROWS,
                count,
                |(service, kind, name), [before, after]| {
                    let before = Figures::of(before, before_seconds);
                    let after = Figures::of(after, after_seconds);
                    let change =
                        |of: fn(Figures) -> Option<f64>| change(before.and_then(of)?, after.and_then(of)?);
                    OperationRow {
                        service,
                        kind,
                        name,
                        rate_change: change(|figures| Some(figures.rate)),
                        p50_change: change(|figures| figures.percentiles.p50_ns.map(|ns| ns as f64)),
                        p95_change: change(|figures| figures.percentiles.p95_ns.map(|ns| ns as f64)),
                        before,
                        after,
                    }
                },
            ),
        }
    }
}

fn name_of(class: &SpanClass) -> (OperationKind, Arc<str>) {
    match &class.role {
        Role::Task { task, .. } => {
            let name = task.as_ref().unwrap_or(&class.name);
            (OperationKind::Task, name.clone())
        }
        _ => (OperationKind::Request, class.route()),
    }
}

/// Returns the relative change from `before` to `after`.
fn change(before: f64, after: f64) -> Option<f64> {
    (before > 0.0).then(|| after / before - 1.0)
}
