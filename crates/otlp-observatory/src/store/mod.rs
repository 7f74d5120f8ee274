//! Stores the newest telemetry in bounded memory and evicts the oldest first; a trace is evicted as a whole.
//! One thread inserts telemetry; the pages only read, and hold each lock for a few milliseconds. Nothing is
//! written to disk.
//!
//! Timestamps and names from senders are not trusted. Time windows use the time of arrival, unless the
//! sender's timestamp is close to it. Eviction only uses the order of arrival.

mod aliases;
mod bins;
mod fair_lock;
mod filter;
#[cfg(test)]
pub(crate) mod fixture;
mod grouping;
mod heatmap;
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
mod readings;
mod search;
mod selection;
mod series;
mod source;
mod span_class;
#[cfg(test)]
mod tests;
mod totals;
mod traces;
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

pub(crate) use filter::{Attribute, Text};
pub(crate) use grouping::{Aggregate, Group, Grouping};
pub(crate) use heatmap::Heatmap;
pub(crate) use ids::{SpanId, TraceId, UnixNano};
pub(crate) use instrument::InstrumentType;
pub(crate) use log_search::{LogSearch, StoredRecord};
pub(crate) use map::Map;
pub(crate) use number::Number;
pub(crate) use overview::Overview;
pub(crate) use readings::Reading;
pub(crate) use search::{SearchPage, StatusFilter, TraceRoot, TraceSearch, TraceSummary};
pub(crate) use selection::{Query, SeriesDescriptor, SeriesSamples, SeriesSearch};
pub(crate) use source::Source;
pub(crate) use totals::Totals;
pub(crate) use waterfall::StoredSpan;

use crate::export::{Counts, Export};
use fair_lock::FairLock;
use intern::InternId;
use logs::Logs;
use metrics::Metrics;
use traces::Traces;

/// Maximum number of log records returned with a trace.
const MAX_TRACE_RECORDS: usize = 1_000;

/// Maximum size of the spans returned with a trace, in bytes. Each span counts with its resource.
const MAX_TRACE_BYTES: usize = 16 << 20;

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
    /// Oldest first.
    pub(crate) logs: Vec<StoredRecord>,
}

impl Store {
    /// Creates a store that uses at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            started: now(),
            generation: AtomicU64::new(0),
            traces: FairLock::new(Traces::new(limit / 100 * 60)),
            logs: FairLock::new(Logs::new(limit / 100 * 25)),
            metrics: FairLock::new(Metrics::new(limit / 100 * 15)),
        }
    }

    /// Inserts an export that has just arrived.
    pub(crate) fn insert(&self, export: Export) {
        self.insert_at(export, now());
    }

    /// Inserts an export that arrived at `now`.
    pub(crate) fn insert_at(&self, export: Export, now: u64) {
        match export {
            Export::Traces(request) => self.traces.write().insert(request.resource_spans, now),
            Export::Logs(request) => self.logs.write().insert(request.resource_logs, now),
            Export::Metrics(request) => self.metrics.write().insert(request.resource_metrics, now),
        }
        self.generation.fetch_add(1, Ordering::Release);
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
        let logs = self.logs.read();
        for trace in &mut found.entries {
            trace.logs = logs.count_in_trace(trace.trace_id);
        }
        found
    }

    pub(crate) fn search_logs(&self, search: &LogSearch) -> SearchPage<StoredRecord> {
        log_search::search(&self.logs, search)
    }

    pub(crate) fn trace(&self, id: TraceId) -> Option<StoredTrace> {
        let mut trace = self.snapshot(id)?;
        let mut spans = Vec::new();
        let mut bytes = 0;
        for index in waterfall::order(&trace.spans) {
            let span = &trace.spans[index];
            bytes += span.encoded.len() + trace.sources[span.source].len();
            if bytes > MAX_TRACE_BYTES {
                break;
            }
            spans.push(span.clone());
        }
        trace.summary.dropped += (trace.spans.len() - spans.len()) as u64;
        trace.spans = spans;
        let of_trace = LogSearch {
            trace: Some(id),
            limit: MAX_TRACE_RECORDS,
            ..LogSearch::default()
        };
        trace.logs = self.search_logs(&of_trace).entries;
        trace.logs.reverse();
        Some(trace)
    }

    /// Copies a trace with its spans in order of arrival.
    fn snapshot(&self, id: TraceId) -> Option<StoredTrace> {
        let traces = self.traces.read();
        let trace = traces.get(id)?;
        let mut sources = Vec::new();
        let mut known = HashMap::new();
        let mut index_of = |class: InternId| {
            let source = traces.classes.get(class).source;
            *known.entry(source).or_insert_with(|| {
                sources.push(traces.sources.get(source).clone());
                sources.len() - 1
            })
        };
        let spans = trace.spans.iter().map(|span| StoredSpan {
            id: span.id,
            parent: span.parent,
            start: span.start,
            source: index_of(span.class),
            encoded: span.encoded.clone(),
        });
        let spans = spans.collect();
        Some(StoredTrace {
            summary: search::summary(&traces, trace),
            sources,
            spans,
            logs: Vec::new(),
        })
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
            refused: Counts {
                spans: traces.refused,
                logs: logs.refused,
                points: metrics.refused,
            },
            services: services.into_iter().take(MAX_SERVICES).cloned().collect(),
        }
    }
}

/// Returns the current time in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
