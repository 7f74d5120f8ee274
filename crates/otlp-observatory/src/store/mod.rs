//! Stores the newest telemetry in bounded memory and evicts the oldest first; a trace is evicted as a whole.
//! One thread inserts telemetry; the pages only read, and hold each lock for a few milliseconds. Nothing is
//! written to disk.
//!
//! Timestamps and names from senders are not trusted. Time windows use the time of arrival, unless the
//! sender's timestamp is close to it. Eviction only uses the order of arrival. Lists are in order of the sender's timestamps.

mod aliases;
mod arrivals;
mod back_links;
mod bins;
mod budget;
mod compare;
mod condition;
mod export;
mod fair_lock;
mod filter;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(feature = "keep")]
pub(crate) mod grams;
mod grouping;
mod heatmap;
#[cfg(feature = "keep")]
mod hint;
mod histogram;
mod ids;
mod instrument;
mod intern;
mod latency;
mod log_search;
mod logs;
mod map;
mod memory;
mod metrics;
mod number;
mod overview;
mod points;
mod position;
pub(crate) mod problems;
mod query;
mod readings;
mod scale;
mod search;
mod selection;
mod series;
mod series_export;
mod skew;
mod sort;
mod source;
mod span_class;
#[cfg(test)]
mod tests;
mod totals;
mod traces;
mod units;
mod waterfall;

use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

pub(crate) use aliases::names as attribute_names;
pub(crate) use back_links::BackLink;
pub(crate) use compare::{TimeComparison, TraceComparison};
pub(crate) use condition::Attribute;
#[cfg(feature = "keep")]
pub(crate) use export::PIECE as EXPORT_PIECE;
pub(crate) use export::{Piece as ExportPiece, Progress};
pub(crate) use filter::Text;
pub(crate) use grouping::{Aggregate, Group, Grouping};
pub(crate) use heatmap::Heatmap;
pub(crate) use ids::{SpanId, TraceId, UnixNano};
pub(crate) use instrument::InstrumentType;
pub(crate) use log_search::{LogSearch, StoredRecord};
pub(crate) use map::Map;
pub(crate) use number::Number;
pub(crate) use overview::Overview;
#[cfg(feature = "keep")]
pub(crate) use position::TimePosition;
pub(crate) use problems::{Kind as ProblemKind, ProblemSearch, Problems, Since};
pub(crate) use query::{Completions, Query as SearchQuery, Subject, parse as parse_query};
pub(crate) use readings::Reading;
pub(crate) use search::{SearchPage, StatusFilter, TraceRoot, TraceSearch, TraceSummary};
pub(crate) use selection::{Query, SeriesDescriptor, SeriesSamples, SeriesSearch};
pub(crate) use skew::moved;
pub(crate) use sort::{Position, Sort, SortedPage};
pub(crate) use source::Source;
#[cfg(feature = "keep")]
pub(crate) use source::service_of;
pub(crate) use totals::Totals;
pub(crate) use units::{AGE_UNITS, DURATION_UNITS, nanoseconds};
pub(crate) use waterfall::StoredSpan;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;

use crate::export::{Counts, Export, Signal};
use budget::{Budget, Evict as _};
use fair_lock::FairLock;
use intern::InternId;
use logs::Logs;
use metrics::Metrics;
use traces::{SpanEntry, Trace, Traces};

/// Maximum number of log records returned with a trace.
const MAX_TRACE_RECORDS: usize = 1_000;

/// Maximum size of the spans returned with a trace, in bytes. Each span counts with its resource.
const MAX_TRACE_BYTES: usize = 32 << 20;

/// Maximum number of service names that [`Usage`] lists.
const MAX_SERVICES: usize = 1_000;

/// Tolerance for series that started before the store, in nanoseconds. A series that started at most this
/// long before the store counts as observed from its start.
const START_TOLERANCE: u64 = 60_000_000_000;

/// In-memory store, shared between the inserting thread and the pages.
#[derive(Debug)]
pub(crate) struct Store {
    limit: usize,
    started: u64,
    generation: AtomicU64,
    traces: FairLock<Traces>,
    logs: FairLock<Logs>,
    metrics: FairLock<Metrics>,
}

/// Memory use and contents of the store.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) memory: Memory,
    pub(crate) kept: Kept,
    pub(crate) evicted: Counts,
    /// Items that were received before.
    pub(crate) repeated: Counts,
    pub(crate) refused: Counts,
    pub(crate) services: Vec<Arc<str>>,
}

/// Memory use, in bytes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Memory {
    pub(crate) limit_bytes: usize,
    pub(crate) traces_bytes: usize,
    pub(crate) logs_bytes: usize,
    pub(crate) metrics_bytes: usize,
}

/// Contents of the store.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Kept {
    pub(crate) traces: usize,
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) series: usize,
    pub(crate) points: u64,
    pub(crate) oldest_unix_nano: Option<UnixNano>,
}

/// Copy of a trace with its spans and log records.
#[derive(Clone, Debug)]
pub(crate) struct StoredTrace {
    pub(crate) summary: TraceSummary,
    /// Resources and scopes of the spans; [`StoredSpan::source`] is an index into this list.
    pub(crate) sources: Vec<Source>,
    /// Spans in waterfall order.
    pub(crate) spans: Vec<StoredSpan>,
    /// Number of spans whose times contradict those of their parent.
    pub(crate) skewed: usize,
    /// Oldest first.
    pub(crate) logs: Vec<StoredRecord>,
}

impl StoredTrace {
    /// Moves the records by the clock offset of their span.
    fn align_logs(&mut self) {
        let process = |span: &StoredSpan| self.sources[span.source].process().clone();
        let offsets = self
            .spans
            .iter()
            .map(|span| ((span.id, process(span)), span.clock_offset));
        let offsets: HashMap<_, _> = offsets.collect();
        for record in &mut self.logs {
            let span = LogRecord::decode(&*record.encoded).ok();
            let span = span.and_then(|decoded| SpanId::from_bytes(&decoded.span_id));
            let offset = span.and_then(|span| offsets.get(&(span, record.source.process().clone())));
            record.time = moved(record.time, offset.copied().unwrap_or(0));
        }
    }
}

impl Store {
    /// Creates a store that uses at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            started: now(),
            generation: AtomicU64::new(0),
            traces: FairLock::new(Traces::new(limit)),
            logs: FairLock::new(Logs::new(limit)),
            metrics: FairLock::new(Metrics::new(limit)),
        }
    }

    /// Inserts an export that arrived at `now`.
    pub(crate) fn insert_at(&self, export: Export, now: u64) {
        let room = self.budget().room(export.signal());
        match export {
            Export::Traces(request) => self.traces.write().insert(request.resource_spans, now, room),
            Export::Logs(request) => self.logs.write().insert(request.resource_logs, now, room),
            Export::Metrics(request) => self.metrics.write().insert(request.resource_metrics, now, room),
        }
        let mut budget = self.budget();
        while let Some(signal) = budget.exceeded() {
            match signal {
                Signal::Traces => budget.shrink(signal, &mut *self.traces.write()),
                Signal::Logs => budget.shrink(signal, &mut *self.logs.write()),
                Signal::Metrics => budget.shrink(signal, &mut *self.metrics.write()),
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the current budget. The locks are not held at the same time, so that readers of several signals cannot cause a
    /// deadlock.
    fn budget(&self) -> Budget {
        let traces = budget::state(&*self.traces.read());
        let metrics = budget::state(&*self.metrics.read());
        let logs = budget::state(&*self.logs.read());
        Budget::new(self.limit, [traces, metrics, logs])
    }

    /// Removes all telemetry; returns what was removed. Numbers continue, so that positions from earlier responses stay valid.
    pub(crate) fn clear(&self) -> Counts {
        let removed = Counts {
            spans: self.traces.write().clear(),
            logs: self.logs.write().clear(),
            points: self.metrics.write().clear(),
        };
        self.generation.fetch_add(1, Ordering::Release);
        removed
    }

    /// Returns the maximum size of a single item, in bytes.
    pub(crate) fn max_item(&self) -> usize {
        budget::max_item(self.limit)
    }

    /// Returns the latest times of evicted traces and records.
    #[cfg(feature = "keep")]
    pub(crate) fn evicted_until(&self) -> (u64, u64) {
        (self.traces.read().evicted_until, self.logs.read().evicted_until)
    }

    /// Returns a number that increases with every insert.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the time at which the store was created, in nanoseconds since 1970.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    pub(crate) fn search_traces(&self, search: &TraceSearch) -> SearchPage<TraceSummary> {
        let mut found = search::search(&self.traces, search);
        self.count_logs(&mut found.entries);
        found
    }

    /// Returns the traces that match `search` in the order of `sort`, from `after`.
    pub(crate) fn sort_traces(
        &self,
        search: &TraceSearch,
        sort: Sort,
        after: Option<&Position>,
    ) -> SortedPage {
        let mut found = sort::search(&self.traces, &self.logs, search, sort, after);
        self.count_logs(&mut found.entries);
        found
    }

    /// Returns the keys of the newest entries, or the values of `key`.
    pub(crate) fn completions(&self, subject: Subject, key: Option<&str>) -> Completions {
        match subject {
            Subject::Spans => query::complete_spans(&self.traces, key),
            Subject::Records => query::complete_records(&self.logs, key),
        }
    }

    fn count_logs(&self, traces: &mut [TraceSummary]) {
        let logs = self.logs.read();
        for trace in traces {
            trace.logs = logs.count_in_trace(trace.trace_id);
        }
    }

    /// Removes the instances of services that have only one.
    pub(crate) fn retain_several_instances(&self, found: &mut [TraceSummary]) {
        let mut instances: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        for source in self
            .traces
            .read()
            .sources
            .iter()
            .filter(|source| !source.instance.is_empty())
        {
            let known = instances.entry(source.service.clone()).or_default();
            known.insert(source.instance.clone());
        }
        let several = instances.into_iter().filter(|(_, instances)| instances.len() > 1);
        let several = several.map(|(service, _)| service).collect();
        found
            .iter_mut()
            .for_each(|trace| trace.retain_instances(&several));
    }

    pub(crate) fn search_logs(&self, search: &LogSearch) -> SearchPage<StoredRecord> {
        log_search::search(&self.logs, search)
    }

    /// Returns a trace; with `align`, in the order of its clocks once they agree. The times of the spans are not changed.
    pub(crate) fn trace(&self, id: TraceId, align: bool) -> Option<StoredTrace> {
        let mut trace = {
            let traces = self.traces.read();
            snapshot(&traces, traces.get(id)?, align)
        };
        let of_trace = LogSearch {
            trace: Some(id),
            limit: MAX_TRACE_RECORDS,
            ..LogSearch::default()
        };
        trace.logs = self.search_logs(&of_trace).entries;
        if align && trace.skewed > 0 {
            trace.align_logs();
        }
        trace.logs.sort_by_key(|record| (record.time, record.sequence));
        Some(trace)
    }

    /// Returns every series that matches `wanted`, without its points.
    pub(crate) fn series(&self, wanted: &SeriesSearch) -> Vec<SeriesDescriptor> {
        let metrics = self.metrics.read();
        let series = metrics.series().filter(|series| wanted.matches(&metrics, series));
        let descriptors = series.map(|series| SeriesDescriptor::of(&metrics, series));
        descriptors.collect()
    }

    /// Returns a query for the points of series in a window.
    pub(crate) fn query<'a>(&self, series: &'a SeriesSearch, window: RangeInclusive<u64>) -> Query<'a> {
        Query {
            series,
            window,
            observed_since: self.started.saturating_sub(START_TOLERANCE),
        }
    }

    /// Returns the number of series that match, and the `limit` largest.
    pub(crate) fn samples(&self, query: &Query<'_>, limit: usize) -> (usize, Vec<SeriesSamples>) {
        query.largest(&self.metrics, limit)
    }

    /// Returns the number of groups, and the `limit` largest.
    pub(crate) fn groups(&self, query: &Query<'_>, by: &Grouping, limit: usize) -> (usize, Vec<Group>) {
        by.largest(&self.metrics, query, limit)
    }

    pub(crate) fn heatmap(&self, query: &Query<'_>) -> Heatmap {
        Heatmap::of(&self.metrics, query)
    }

    /// Returns the overview of the `window` nanoseconds before `now`.
    pub(crate) fn overview(&self, window: u64, now: u64) -> Overview {
        overview::overview(&self.traces, window, now)
    }

    /// Compares two traces; returns `None` if one is not stored.
    pub(crate) fn compare_traces(&self, a: TraceId, b: TraceId) -> Option<TraceComparison> {
        let compared = |id| {
            let trace = self.trace(id, false)?;
            Some(compare::Compared {
                summary: trace.summary,
                sources: trace.sources,
                spans: trace.spans,
            })
        };
        Some(compare::compare_traces(compared(a)?, compared(b)?))
    }

    /// Compares the `window` nanoseconds before `at` with those from `at`, until `now`.
    pub(crate) fn compare_times(&self, at: u64, window: u64, now: u64) -> TimeComparison {
        compare::compare_times(&self.traces, at, window, now)
    }

    /// Returns the problems at `now`.
    pub(crate) fn problems(&self, search: &ProblemSearch, now: u64) -> Problems {
        let mut pools = Vec::new();
        for name in problems::POOL_INSTRUMENTS {
            let series = SeriesSearch {
                name: Some(name.to_owned()),
                ..SeriesSearch::default()
            };
            let query = self.query(&series, 0..=u64::MAX);
            pools.extend(self.samples(&query, problems::MAX_POOLS).1);
        }
        problems::problems(&self.traces, &self.logs, &pools, search, now)
    }

    /// Returns the service map of the `window` nanoseconds before `now`, optionally only the calls from and to
    /// `service`.
    pub(crate) fn map(&self, window: u64, now: u64, service: Option<&str>) -> Map {
        map::map(&self.traces, window, now, service)
    }

    pub(crate) fn usage(&self) -> Usage {
        let traces = self.traces.read();
        let logs = self.logs.read();
        let metrics = self.metrics.read();
        let sources = [&traces.sources, &logs.sources, &metrics.sources];
        let sources = sources.into_iter().flat_map(|sources| sources.iter());
        let services: BTreeSet<_> = sources.map(|source| &source.service).collect();
        let oldest = [traces.oldest(), logs.oldest(), metrics.oldest()];
        Usage {
            memory: Memory {
                limit_bytes: self.limit,
                traces_bytes: traces.bytes(),
                logs_bytes: logs.bytes(),
                metrics_bytes: metrics.bytes(),
            },
            kept: Kept {
                traces: traces.len(),
                spans: traces.spans as u64,
                logs: logs.len() as u64,
                series: metrics.len(),
                points: metrics.points as u64,
                oldest_unix_nano: oldest.into_iter().flatten().min().map(UnixNano),
            },
            evicted: Counts {
                spans: traces.evicted,
                logs: logs.evicted,
                points: metrics.evicted,
            },
            repeated: Counts {
                spans: traces.repeated,
                logs: logs.repeated,
                points: metrics.repeated,
            },
            refused: Counts {
                spans: traces.refused,
                logs: logs.refused,
                points: metrics.refused,
            },
            services: services.into_iter().take(MAX_SERVICES).cloned().collect(),
        }
    }
}

/// Copies a trace. If it is too large for a response, the least important spans are left out.
fn snapshot(traces: &Traces, trace: &Trace, align: bool) -> StoredTrace {
    let size = |span: &SpanEntry| span.encoded.len() + traces.source(span).len();
    let mut summary = search::summary(traces, trace);
    let mut indices: Vec<usize> = (0..trace.spans.len()).collect();
    if trace.spans.iter().map(size).sum::<usize>() > MAX_TRACE_BYTES {
        let mut bytes = 0;
        indices = traces::by_importance(&trace.spans);
        indices.retain(|&index| {
            bytes += size(&trace.spans[index]);
            bytes <= MAX_TRACE_BYTES
        });
        indices.sort_unstable();
        summary.dropped += (trace.spans.len() - indices.len()) as u64;
    }
    let nodes = scale::nodes(traces, indices.iter().map(|&index| &trace.spans[index]));
    let layout = waterfall::lay_out(&nodes, align);
    let mut rows = vec![0; nodes.len()];
    for (row, &node) in layout.order.iter().enumerate() {
        rows[node] = row;
    }
    let mut sources = Vec::new();
    let mut known = HashMap::new();
    let mut index_of = |class: InternId| {
        let source = traces.classes.get(class).source;
        *known.entry(source).or_insert_with(|| {
            sources.push(traces.sources.get(source).clone());
            sources.len() - 1
        })
    };
    let spans = layout.order.iter().map(|&node| {
        let span = &trace.spans[indices[node]];
        StoredSpan {
            id: span.id,
            source: index_of(span.class),
            parent: layout.parents[node].map(|parent| rows[parent]),
            is_orphan: layout.orphans[node],
            clock_offset: layout.offsets[node],
            encoded: span.encoded.clone(),
        }
    });
    let spans = spans.collect();
    StoredTrace {
        summary,
        sources,
        spans,
        skewed: layout.offsets.iter().filter(|&&offset| offset != 0).count(),
        logs: Vec::new(),
    }
}

/// Returns the current time in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
