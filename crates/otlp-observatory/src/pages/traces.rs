//! `/traces` and `/traces/{trace_id}`: search for traces, and a trace with its spans and log records.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{
        Span,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use prost::Message as _;
use serde::Serialize;

use super::{
    answer::json,
    json::Attributes,
    logs::{Record, decode_all},
    page::{Explorer, Page},
    parameters::Parameters,
    refusal::Refusal,
};
use crate::store::{Source, SpanId, StatusFilter, TraceId, TraceSearch, TraceSummary, UnixNano};

pub(super) const LIST: Page = Page {
    parameters: &[
        "service",
        "name",
        "status",
        "min_duration",
        "max_duration",
        "attribute",
        "text",
        "from",
        "to",
        "limit",
        "before",
    ],
    is_time_dependent: false,
    compute: list,
};

pub(super) const ONE: Page = Page {
    parameters: &[],
    is_time_dependent: false,
    compute: one,
};

#[derive(Serialize)]
struct List {
    next: Option<String>,
    traces: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    trace_id: TraceId,
    root: Root,
    start_unix_nano: UnixNano,
    duration_ns: u64,
    spans: usize,
    errors: usize,
    logs: u64,
    services: Vec<ServiceSpans>,
}

#[derive(Serialize)]
struct Root {
    service: Arc<str>,
    name: Arc<str>,
}

#[derive(Serialize)]
struct ServiceSpans {
    service: Arc<str>,
    spans: usize,
}

#[derive(Serialize)]
struct Trace<'a> {
    trace_id: TraceId,
    root: Root,
    start_unix_nano: UnixNano,
    duration_ns: u64,
    dropped_spans: u64,
    spans: Vec<JsonSpan<'a>>,
    logs: Vec<Record<'a>>,
}

#[derive(Serialize)]
struct JsonSpan<'a> {
    span_id: Option<SpanId>,
    parent_span_id: Option<SpanId>,
    service: &'a str,
    scope: &'a str,
    name: &'a str,
    kind: &'static str,
    start_unix_nano: UnixNano,
    duration_ns: u64,
    status: &'static str,
    status_message: &'a str,
    attributes: Attributes<'a>,
    resource: Attributes<'a>,
    events: Vec<JsonEvent<'a>>,
    links: Vec<JsonLink<'a>>,
}

#[derive(Serialize)]
struct JsonEvent<'a> {
    name: &'a str,
    time_unix_nano: UnixNano,
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
struct JsonLink<'a> {
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    attributes: Attributes<'a>,
}

fn list(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let search = TraceSearch {
        service: parameters.text("service").map(str::to_owned),
        name: parameters.search("name"),
        status: parameters.choice(
            "status",
            "must be `ok` or `error`",
            &[("ok", StatusFilter::Ok), ("error", StatusFilter::Error)],
        )?,
        min_duration: parameters.duration("min_duration")?,
        max_duration: parameters.duration("max_duration")?,
        attributes: parameters.attributes(),
        text: parameters.search("text"),
        from: parameters.timestamp("from")?,
        to: parameters.timestamp("to")?,
        before: parameters.cursor("before")?,
        limit: parameters.limit()?,
    };
    let generation = explorer.store.generation();
    let found = explorer.store.search_traces(&search);
    let traces = found
        .entries
        .into_iter()
        .map(|(trace, logs)| Summary::new(trace, logs));
    json(
        generation,
        List {
            next: found.next.map(|next| next.to_string()),
            traces: traces.collect(),
        },
    )
}

fn one(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let generation = explorer.store.generation();
    let id = parameters.trace_id()?.ok_or(Refusal::NoPage)?;
    let trace = explorer.store.trace(id).ok_or(Refusal::NotStored("trace"))?;
    let resources: Vec<_> = trace.sources.iter().map(Source::resource).collect();
    let decoded: Vec<_> = trace
        .spans
        .iter()
        .map(|span| Span::decode(&*span.encoded).unwrap_or_default())
        .collect();
    let logs = decode_all(&trace.logs);
    let spans = trace.spans.iter().zip(&decoded);
    let spans = spans
        .map(|(span, decoded)| JsonSpan::new(decoded, &trace.sources[span.source], &resources[span.source]));
    json(
        generation,
        Trace {
            trace_id: id,
            root: Root::of(&trace.summary),
            start_unix_nano: UnixNano(trace.summary.start),
            duration_ns: trace.summary.duration,
            dropped_spans: trace.summary.dropped,
            spans: spans.collect(),
            logs: logs.iter().map(|log| log.to_json()).collect(),
        },
    )
}

impl Root {
    fn of(trace: &TraceSummary) -> Self {
        Self {
            service: trace.root_service.clone(),
            name: trace.root_name.clone(),
        }
    }
}

impl Summary {
    fn new(trace: TraceSummary, logs: u64) -> Self {
        let services = trace.services.iter().cloned();
        Self {
            trace_id: trace.id,
            root: Root::of(&trace),
            start_unix_nano: UnixNano(trace.start),
            duration_ns: trace.duration,
            spans: trace.spans,
            errors: trace.errors,
            logs,
            services: services
                .map(|(service, spans)| ServiceSpans { service, spans })
                .collect(),
        }
    }
}

impl<'a> JsonSpan<'a> {
    fn new(span: &'a Span, source: &'a Source, resource: &'a [KeyValue]) -> Self {
        Self {
            span_id: SpanId::from_bytes(&span.span_id),
            parent_span_id: SpanId::from_bytes(&span.parent_span_id),
            service: &source.service,
            scope: &source.scope,
            name: &span.name,
            kind: kind(span.kind()),
            start_unix_nano: UnixNano(span.start_time_unix_nano),
            duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
            status: match span.status.as_ref().map(|status| status.code()) {
                Some(StatusCode::Error) => "error",
                Some(StatusCode::Ok) => "ok",
                Some(StatusCode::Unset) | None => "unset",
            },
            status_message: span.status.as_ref().map_or("", |status| &status.message),
            attributes: Attributes(&span.attributes),
            resource: Attributes(resource),
            events: span.events.iter().map(JsonEvent::new).collect(),
            links: span.links.iter().map(JsonLink::new).collect(),
        }
    }
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "unspecified",
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

impl<'a> JsonEvent<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            name: &event.name,
            time_unix_nano: UnixNano(event.time_unix_nano),
            attributes: Attributes(&event.attributes),
        }
    }
}

impl<'a> JsonLink<'a> {
    fn new(link: &'a Link) -> Self {
        Self {
            trace_id: TraceId::from_bytes(&link.trace_id),
            span_id: SpanId::from_bytes(&link.span_id),
            attributes: Attributes(&link.attributes),
        }
    }
}
