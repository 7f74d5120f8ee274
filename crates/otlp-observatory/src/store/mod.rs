//! The newest telemetry in bounded memory, oldest first out, whole traces kept together. One thread inserts; the pages only
//! read, and hold the locks for milliseconds. Nothing is kept anywhere else, and nothing survives the process.
//!
//! Senders' clocks and names may say anything. Windows of time go by when something came, unless the sender's word is close
//! to that; eviction goes only by when it came.

mod filter;
#[cfg(test)]
pub(crate) mod fixture;
mod gated;
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
mod origin;
mod overview;
mod points;
mod readings;
mod search;
mod selection;
mod series;
mod shape;
#[cfg(test)]
mod tests;
mod traces;
mod waterfall;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

pub(crate) use filter::{Attribute, Text};
pub(crate) use ids::{SpanId, TraceId, UnixNano};
pub(crate) use instrument::InstrumentType;
pub(crate) use log_search::{KeptRecord, LogSearch};
pub(crate) use map::Map;
pub(crate) use origin::Origin;
pub(crate) use overview::Overview;
pub(crate) use points::KeptExemplar;
pub(crate) use readings::Reading;
pub(crate) use search::{Found, Outcome, TraceSearch, TraceSummary};
pub(crate) use selection::{SeriesHead, SeriesReadings, SeriesSearch};

use crate::export::Export;
use gated::Gated;
use logs::Logs;
use metrics::Metrics;
use selection::TakenSeries;
use traces::Traces;

/// How many records of a trace are shown with it.
const RECORDS_OF_TRACE: usize = 1_000;

/// How many bytes of spans, each with its resource, are shown of a trace.
const TRACE_BYTES: usize = 16 << 20;

/// How many services are told.
const MAX_SERVICES: usize = 1_000;

/// A series that began this long before the store did is taken as one that was watched from its start.
const BEFORE_START: u64 = 60_000_000_000;

/// What is kept. Shared between the thread that inserts and the pages, which only read.
#[derive(Debug)]
pub(crate) struct Store {
    limit: usize,
    started: u64,
    generation: AtomicU64,
    traces: Gated<Traces>,
    logs: Gated<Logs>,
    metrics: Gated<Metrics>,
}

/// Numbers of each signal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
}

/// How full the store is.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) limit_bytes: usize,
    pub(crate) traces_bytes: usize,
    pub(crate) logs_bytes: usize,
    pub(crate) metrics_bytes: usize,
    pub(crate) traces: usize,
    pub(crate) series: usize,
    pub(crate) kept: Counts,
    pub(crate) evicted: Counts,
    pub(crate) refused: Counts,
    pub(crate) oldest: Option<u64>,
    pub(crate) services: Vec<Arc<str>>,
}

/// A trace, taken out.
#[derive(Clone, Debug)]
pub(crate) struct KeptTrace {
    pub(crate) summary: TraceSummary,
    /// Where its spans come from.
    pub(crate) origins: Vec<Origin>,
    /// In the order of the waterfall.
    pub(crate) spans: Vec<KeptSpan>,
    /// Oldest first.
    pub(crate) logs: Vec<KeptRecord>,
}

/// A span, taken out.
#[derive(Clone, Debug)]
pub(crate) struct KeptSpan {
    /// The place in [`KeptTrace::origins`].
    pub(crate) origin: usize,
    pub(crate) encoded: Arc<[u8]>,
}

impl Store {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            started: now(),
            generation: AtomicU64::new(0),
            traces: Gated::new(Traces::new(limit / 100 * 60)),
            logs: Gated::new(Logs::new(limit / 100 * 25)),
            metrics: Gated::new(Metrics::new(limit / 100 * 15)),
        }
    }

    /// Keeps what just came.
    pub(crate) fn insert(&self, export: Export) {
        self.insert_at(export, now());
    }

    /// Keeps what came at `now`.
    pub(crate) fn insert_at(&self, export: Export, now: u64) {
        match export {
            Export::Traces(request) => self.traces.write().insert(request.resource_spans, now),
            Export::Logs(request) => self.logs.write().insert(request.resource_logs, now),
            Export::Metrics(request) => self.metrics.write().insert(request.resource_metrics, now),
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Grows with everything received.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// When it was made.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    pub(crate) fn search_traces(&self, search: &TraceSearch) -> Found<(TraceSummary, u64)> {
        let found = search::search(&self.traces, search);
        let logs = self.logs.read();
        let with_logs = |trace: TraceSummary| {
            let records = logs.of_trace(trace.id);
            (trace, records)
        };
        Found {
            entries: found.entries.into_iter().map(with_logs).collect(),
            next: found.next,
        }
    }

    pub(crate) fn search_logs(&self, search: &LogSearch) -> Found<KeptRecord> {
        log_search::search(&self.logs, search)
    }

    pub(crate) fn trace(&self, id: TraceId) -> Option<KeptTrace> {
        let (mut trace, places) = self.copied(id)?;
        let mut bytes = 0;
        let fits = |place: &usize| {
            let span = &trace.spans[*place];
            bytes += span.encoded.len() + trace.origins[span.origin].len();
            bytes <= TRACE_BYTES
        };
        let shown: Vec<_> = waterfall::order(&places).into_iter().take_while(fits).collect();
        trace.summary.dropped += (trace.spans.len() - shown.len()) as u64;
        trace.spans = shown
            .into_iter()
            .map(|place| trace.spans[place].clone())
            .collect();
        let of_trace = LogSearch {
            trace: Some(id),
            limit: RECORDS_OF_TRACE,
            ..LogSearch::default()
        };
        trace.logs = self.search_logs(&of_trace).entries;
        trace.logs.reverse();
        Some(trace)
    }

    /// A trace as it is kept, in the order it came, and where its spans belong.
    fn copied(&self, id: TraceId) -> Option<(KeptTrace, Vec<waterfall::Place>)> {
        let traces = self.traces.read();
        let trace = traces.get(id)?;
        let mut origins = Vec::new();
        let mut known = HashMap::new();
        let spans = trace.spans.iter().map(|span| KeptSpan {
            origin: *known
                .entry(traces.shapes.get(span.shape).origin)
                .or_insert_with(|| {
                    origins.push(traces.origin(span).clone());
                    origins.len() - 1
                }),
            encoded: span.encoded.clone(),
        });
        let spans = spans.collect();
        let kept = KeptTrace {
            summary: search::summary(&traces, trace),
            origins,
            spans,
            logs: Vec::new(),
        };
        Some((kept, trace.spans.iter().map(waterfall::Place::from).collect()))
    }

    /// Every series of which `wanted` holds, without its points.
    pub(crate) fn series(&self, wanted: &SeriesSearch) -> Vec<SeriesHead> {
        let metrics = self.metrics.read();
        let series = metrics.series().filter(|series| wanted.holds(&metrics, series));
        series.map(|series| SeriesHead::of(&metrics, series)).collect()
    }

    /// The most recently updated `limit` series of which `wanted` holds, with what they say.
    pub(crate) fn readings(&self, wanted: &SeriesSearch, limit: usize) -> Vec<SeriesReadings> {
        let metrics = self.metrics.read();
        let mut series: Vec<_> = metrics
            .series()
            .filter(|series| wanted.holds(&metrics, series))
            .collect();
        series.sort_by_key(|series| std::cmp::Reverse(series.points.back().map(|point| point.came)));
        series.truncate(limit);
        let taken: Vec<_> = series
            .into_iter()
            .map(|series| TakenSeries::of(&metrics, series))
            .collect();
        drop(metrics);
        let watched_since = self.started.saturating_sub(BEFORE_START);
        taken
            .into_iter()
            .map(|series| series.read(watched_since))
            .collect()
    }

    /// The `window` nanoseconds before `now`.
    pub(crate) fn overview(&self, window: u64, now: u64) -> Overview {
        overview::overview(&self.traces, window, now)
    }

    /// Who called whom in the `window` nanoseconds before `now`.
    pub(crate) fn map(&self, window: u64, now: u64) -> Map {
        map::map(&self.traces, window, now)
    }

    pub(crate) fn fill(&self) -> Fill {
        let traces = self.traces.read();
        let logs = self.logs.read();
        let metrics = self.metrics.read();
        let origins = traces
            .origins
            .iter()
            .chain(logs.origins.iter())
            .chain(metrics.origins.iter());
        let services: BTreeSet<_> = origins.map(|origin| &origin.service).collect();
        Fill {
            limit_bytes: self.limit,
            traces_bytes: traces.bytes(),
            logs_bytes: logs.bytes(),
            metrics_bytes: metrics.bytes(),
            traces: traces.len(),
            series: metrics.len(),
            kept: Counts {
                spans: traces.spans() as u64,
                logs: logs.len() as u64,
                points: metrics.points() as u64,
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
            oldest: [traces.oldest(), logs.oldest(), metrics.oldest()]
                .into_iter()
                .flatten()
                .min(),
            services: services.into_iter().take(MAX_SERVICES).cloned().collect(),
        }
    }
}

/// The wall clock, in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
