//! `/traces` and `/traces/{trace_id}`: search for traces, and a trace with its spans and log records.

use std::sync::Arc;

use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::Span};
use prost::Message as _;
use serde::{Serialize, Serializer};

use super::{error::PageError, explorer::Explorer, json::Attributes, logs::Record, parameters::Parameters};
use crate::store::{
    Source, SpanId, StatusFilter, StoredSpan, Subject, TraceId, TraceRoot, TraceSearch, TraceSummary,
    UnixNano, moved,
};

#[derive(Serialize)]
pub(super) struct List {
    next: Option<String>,
    /// Whether every stored trace was compared; only in sorted lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    traces: Vec<TraceSummary>,
}

#[derive(Serialize)]
pub(super) struct Trace {
    trace_id: TraceId,
    root: TraceRoot,
    start_unix_nano: UnixNano,
    duration_ns: u64,
    dropped_spans: u64,
    skewed_spans: usize,
    spans: Spans,
    logs: Vec<Record>,
}

/// Spans that are decoded one by one while they are serialized, because a trace may have many.
struct Spans {
    stored: Vec<StoredSpan>,
    sources: Vec<(Source, Arc<[KeyValue]>)>,
    is_aligned: bool,
}

#[derive(Serialize)]
struct JsonSpan {
    span_id: Option<SpanId>,
    parent_span_id: Option<SpanId>,
    parent_index: Option<usize>,
    missing_parent: bool,
    service: Arc<str>,
    scope: Arc<str>,
    name: String,
    kind: String,
    start_unix_nano: UnixNano,
    duration_ns: u64,
    clock_offset_ns: i64,
    status: String,
    status_message: String,
    attributes: Attributes<Vec<KeyValue>>,
    resource: Attributes<Arc<[KeyValue]>>,
    events: Vec<JsonEvent>,
    links: Vec<JsonLink>,
}

#[derive(Serialize)]
struct JsonEvent {
    name: String,
    time_unix_nano: UnixNano,
    attributes: Attributes<Vec<KeyValue>>,
}

#[derive(Serialize)]
struct JsonLink {
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    attributes: Attributes<Vec<KeyValue>>,
}

pub(super) fn list(explorer: &Explorer, parameters: &mut Parameters) -> Result<List, PageError> {
    let sort = parameters.sort()?;
    let search = TraceSearch {
        query: parameters.query(Subject::Spans)?,
        service: parameters.text("service")?,
        name: parameters.search("name")?,
        status: parameters.parsed("status", "must be `ok` or `error`", |text| match text {
            "ok" => Some(StatusFilter::Ok),
            "error" => Some(StatusFilter::Error),
            _ => None,
        })?,
        min_duration: parameters.duration("min_duration")?,
        max_duration: parameters.duration("max_duration")?,
        attributes: parameters.attributes()?,
        text: parameters.search("text")?,
        from: parameters.timestamp("from")?,
        to: parameters.timestamp("to")?,
        before: parameters.cursor("before")?,
        above: None,
        limit: parameters.limit()?,
    };
    parameters.finish()?;
    if let Some((sort, after)) = sort {
        let mut found = explorer.store.sort_traces(&search, sort, after.as_ref());
        explorer.store.retain_several_instances(&mut found.entries);
        return Ok(List {
            next: found.next.map(|next| next.to_text()),
            complete: Some(found.is_complete),
            traces: found.entries,
        });
    }
    let mut found = explorer.search_traces(&search);
    explorer.store.retain_several_instances(&mut found.entries);
    Ok(List {
        next: found.next.map(|next| next.to_string()),
        complete: None,
        traces: found.entries,
    })
}

pub(super) fn trace(explorer: &Explorer, parameters: &mut Parameters) -> Result<Trace, PageError> {
    let id = parameters.trace_id()?.ok_or(PageError::NoPage)?;
    let align = parameters.parsed("align", "must be `clocks`", |text| {
        (text == "clocks").then_some(())
    })?;
    parameters.finish()?;
    let is_aligned = align.is_some();
    let trace = explorer
        .trace(id, is_aligned)
        .ok_or(PageError::NotStored("trace"))?;
    let with_resource = |source: Source| {
        let resource = source.resource().into();
        (source, resource)
    };
    Ok(Trace {
        trace_id: id,
        start_unix_nano: trace.summary.start_unix_nano,
        duration_ns: trace.summary.duration_ns,
        dropped_spans: trace.summary.dropped,
        skewed_spans: trace.skewed,
        spans: Spans {
            stored: trace.spans,
            sources: trace.sources.into_iter().map(with_resource).collect(),
            is_aligned,
        },
        root: trace.summary.root,
        logs: trace.logs.into_iter().map(Record::new).collect(),
    })
}

impl Serialize for Spans {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.stored.iter().map(|span| {
            let (source, resource) = &self.sources[span.source];
            JsonSpan::new(span, source, resource.clone(), self.is_aligned)
        }))
    }
}

impl JsonSpan {
    fn new(stored: &StoredSpan, source: &Source, resource: Arc<[KeyValue]>, is_aligned: bool) -> Self {
        let span = Span::decode(&*stored.encoded).unwrap_or_default();
        let offset = if is_aligned { stored.clock_offset } else { 0 };
        let kind = span.kind().as_str_name();
        let status = span.status.unwrap_or_default();
        let events = span.events.into_iter().map(|event| JsonEvent {
            name: event.name,
            time_unix_nano: UnixNano(moved(event.time_unix_nano, offset)),
            attributes: Attributes(event.attributes),
        });
        let links = span.links.into_iter().map(|link| JsonLink {
            trace_id: TraceId::from_bytes(&link.trace_id),
            span_id: SpanId::from_bytes(&link.span_id),
            attributes: Attributes(link.attributes),
        });
        Self {
            span_id: SpanId::from_bytes(&span.span_id),
            parent_span_id: SpanId::from_bytes(&span.parent_span_id),
            parent_index: stored.parent,
            missing_parent: stored.is_orphan,
            service: source.service.clone(),
            scope: source.scope.clone(),
            name: span.name,
            kind: short_name(kind, "SPAN_KIND_"),
            start_unix_nano: UnixNano(moved(span.start_time_unix_nano, offset)),
            duration_ns: match span.start_time_unix_nano {
                0 => 0,
                start => span.end_time_unix_nano.saturating_sub(start),
            },
            clock_offset_ns: stored.clock_offset,
            status: short_name(status.code().as_str_name(), "STATUS_CODE_"),
            status_message: status.message,
            attributes: Attributes(span.attributes),
            resource: Attributes(resource),
            events: events.collect(),
            links: links.collect(),
        }
    }
}

/// Returns the protobuf name of an enumeration value in lower case and without its prefix.
fn short_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}
