//! Stored spans and log records as OTLP, in pieces of limited size. Receiving the pieces again results in the same telemetry.

use std::{collections::HashMap, sync::Arc};

use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use super::{Store, TraceId, position::TimePosition, source::Source};

/// Size of the items after which a piece ends, in encoded bytes.
const PIECE: usize = 1 << 20;

/// Part of an export; its JSON is OTLP/JSON for both signals.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Piece {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_spans: Vec<ResourceSpans>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_logs: Vec<ResourceLogs>,
}

/// Position in the export of everything: the numbers of the next trace and of the next record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    trace: u64,
    record: u64,
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
        })
    }

    /// Returns the telemetry after `progress`, and advances it; `None` at the end.
    pub(crate) fn export_piece(&self, progress: &mut Progress) -> Option<Piece> {
        let mut spans = Items::default();
        {
            let traces = self.traces.read();
            for (number, trace) in traces.from(progress.trace) {
                progress.trace = number + 1;
                for span in &trace.spans {
                    spans.add(traces.source(span), &span.encoded);
                }
                if spans.bytes > PIECE {
                    break;
                }
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
        (spans.bytes + records.bytes > 0).then(|| Piece {
            resource_spans: spans.resource_spans(),
            resource_logs: records.resource_logs(),
        })
    }
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
