//! Stored telemetry as OTLP, in pieces of limited size. Receiving the pieces again results in the same telemetry.

use std::{collections::HashMap, sync::Arc};

use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Metric, ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

#[cfg(feature = "keep")]
use crate::export::Export;

use super::{Store, TraceId, metrics::Metrics, position::TimePosition, source::Source};

/// Size of the items after which a piece ends, in encoded bytes.
pub(crate) const PIECE: usize = 1 << 20;

/// Number of series that are added to a piece before its size is checked.
const SERIES: usize = 16;

/// Part of an export; its JSON is OTLP/JSON for both signals.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Piece {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_spans: Vec<ResourceSpans>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_logs: Vec<ResourceLogs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_metrics: Vec<ResourceMetrics>,
}

/// Position in the export of everything: the number of the next trace and the index of its next span, the number of the next
/// record, and the index of the next series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    trace: u64,
    span: usize,
    record: u64,
    series: usize,
    /// Number of the next row of the archive.
    #[cfg(feature = "keep")]
    pub(crate) row: i64,
}

/// Items in OTLP's protobuf encoding by source.
#[derive(Default)]
struct Items {
    by_source: Vec<(Source, Vec<Arc<[u8]>>)>,
    known: HashMap<(Arc<[u8]>, Arc<str>), usize>,
    bytes: usize,
}

impl Store {
    /// Returns a trace with its records; `None` if it is not stored.
    pub(crate) fn export_trace(&self, id: TraceId) -> Option<Piece> {
        let mut spans = Items::default();
        {
            let traces = self.traces.read();
            for span in &traces.get(id)?.spans {
                spans.add(traces.source(span), &span.encoded);
            }
        }
        let mut records = Items::default();
        {
            let logs = self.logs.read();
            let mut entries: Vec<_> = logs.before(Some(id), TimePosition::END).collect();
            // Records of the same time stay in order of arrival.
            entries.reverse();
            for (_, entry) in entries {
                records.add(logs.sources.get(entry.source), &entry.encoded);
            }
        }
        Some(Piece {
            resource_spans: spans.resource_spans(),
            resource_logs: records.resource_logs(),
            resource_metrics: Vec::new(),
        })
    }

    /// Returns the telemetry after `progress`, and advances it; `None` at the end.
    pub(crate) fn export_piece(&self, progress: &mut Progress) -> Option<Piece> {
        let mut spans = Items::default();
        {
            let traces = self.traces.read();
            'traces: for (number, trace) in traces.from(progress.trace) {
                if number != progress.trace {
                    (progress.trace, progress.span) = (number, 0);
                }
                for span in trace.spans.iter().skip(progress.span) {
                    spans.add(traces.source(span), &span.encoded);
                    progress.span += 1;
                    if spans.bytes > PIECE {
                        break 'traces;
                    }
                }
                (progress.trace, progress.span) = (number + 1, 0);
            }
        }
        let mut records = Items::default();
        {
            let logs = self.logs.read();
            for (number, entry) in logs.from(progress.record) {
                progress.record = number + 1;
                records.add(logs.sources.get(entry.source), &entry.encoded);
                if spans.bytes + records.bytes > PIECE {
                    break;
                }
            }
        }
        let resource_metrics = if spans.bytes + records.bytes > 0 {
            Vec::new()
        } else {
            metrics(&self.metrics.read(), &mut progress.series)
        };
        (spans.bytes + records.bytes > 0 || !resource_metrics.is_empty()).then(|| Piece {
            resource_spans: spans.resource_spans(),
            resource_logs: records.resource_logs(),
            resource_metrics,
        })
    }
}

#[cfg(feature = "keep")]
impl Piece {
    /// Adds an export.
    pub(crate) fn add(&mut self, export: Export) {
        match export {
            Export::Traces(request) => self.resource_spans.extend(request.resource_spans),
            Export::Logs(request) => self.resource_logs.extend(request.resource_logs),
            Export::Metrics(request) => self.resource_metrics.extend(request.resource_metrics),
        }
    }
}

/// Returns the series from the index `next`, and advances it.
fn metrics(stored: &Metrics, next: &mut usize) -> Vec<ResourceMetrics> {
    let mut by_source: Vec<(Source, Vec<Metric>)> = Vec::new();
    let mut bytes = 0;
    loop {
        let (series, is_end) = stored.series_in(*next..*next + SERIES);
        for series in series {
            let source = stored.source(series);
            let metric = series.to_metric(stored.instrument(series));
            bytes += metric.encoded_len();
            let is_same = |(known, _): &&mut (Source, Vec<Metric>)| {
                known.process() == source.process() && known.scope == source.scope
            };
            match by_source.iter_mut().rev().find(is_same) {
                Some((_, metrics)) => metrics.push(metric),
                None => by_source.push((source.clone(), vec![metric])),
            }
        }
        *next += SERIES;
        if is_end || bytes > PIECE {
            break;
        }
    }
    let group = |(source, metrics): (Source, Vec<_>)| ResourceMetrics {
        resource: Resource::decode(&**source.process()).ok(),
        scope_metrics: vec![ScopeMetrics {
            scope: scope(&source),
            metrics,
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    };
    by_source.into_iter().map(group).collect()
}

impl Items {
    fn add(&mut self, source: &Source, item: &Arc<[u8]>) {
        let key = (source.process().clone(), source.scope.clone());
        let index = *self.known.entry(key).or_insert_with(|| {
            self.by_source.push((source.clone(), Vec::new()));
            self.by_source.len() - 1
        });
        self.by_source[index].1.push(item.clone());
        self.bytes += item.len();
    }

    fn resource_spans(self) -> Vec<ResourceSpans> {
        let group = |(source, items): (Source, Vec<_>)| ResourceSpans {
            resource: Resource::decode(&**source.process()).ok(),
            scope_spans: vec![ScopeSpans {
                scope: scope(&source),
                spans: decoded::<Span>(&items),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        self.by_source.into_iter().map(group).collect()
    }

    fn resource_logs(self) -> Vec<ResourceLogs> {
        let group = |(source, items): (Source, Vec<_>)| ResourceLogs {
            resource: Resource::decode(&**source.process()).ok(),
            scope_logs: vec![ScopeLogs {
                scope: scope(&source),
                log_records: decoded::<LogRecord>(&items),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        };
        self.by_source.into_iter().map(group).collect()
    }
}

fn scope(source: &Source) -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: source.scope.to_string(),
        ..InstrumentationScope::default()
    })
}

fn decoded<T: Message + Default>(items: &[Arc<[u8]>]) -> Vec<T> {
    items.iter().filter_map(|item| T::decode(&**item).ok()).collect()
}
