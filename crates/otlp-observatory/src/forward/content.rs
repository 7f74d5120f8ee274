//! Selects and encodes the content of an export to forward: spans of health checks are omitted, and the
//! deployment environment is written into every resource, like `filter/health` and `resource/environment` of
//! the collector's configuration.
//!
//! The export is not modified, and only its resources are copied.

use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ScopeSpans, Span},
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, message, string},
};

use crate::export::Export;

/// The resource attribute since semantic conventions 1.27, and its earlier name.
const ENVIRONMENT: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

/// An export request, encoded.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) request: Vec<u8>,
    /// Number of spans, log records or metric points.
    pub(super) items: u32,
}

/// Encodes `export` after `reserved` bytes that the caller fills; `None` when there is nothing to forward.
pub(super) fn content(export: &Export, environment: Option<&str>, reserved: usize) -> Option<Content> {
    let mut request = Vec::with_capacity(reserved + export.encoded_len() + 128);
    request.resize(reserved, 0);
    let mut items = export.items();
    match export {
        Export::Traces(traces) => {
            items = 0;
            for group in &traces.resource_spans {
                let scopes = without_health(&group.scope_spans);
                let spans: usize = scopes.iter().map(|scope| scope.spans.len()).sum();
                items += spans;
                if spans > 0 {
                    let resource = with_environment(group.resource.as_ref(), environment);
                    append(&mut request, resource.as_deref(), &scopes, &group.schema_url);
                }
            }
        }
        Export::Metrics(metrics) => {
            for group in &metrics.resource_metrics {
                let resource = with_environment(group.resource.as_ref(), environment);
                let scopes = &group.scope_metrics;
                append(&mut request, resource.as_deref(), scopes, &group.schema_url);
            }
        }
        Export::Logs(logs) => {
            for group in &logs.resource_logs {
                let resource = with_environment(group.resource.as_ref(), environment);
                let scopes = &group.scope_logs;
                append(&mut request, resource.as_deref(), scopes, &group.schema_url);
            }
        }
    }
    (items > 0).then(|| Content {
        request,
        items: u32::try_from(items).unwrap_or(u32::MAX),
    })
}

/// Returns the scopes without spans of health checks, and without scopes that have no other spans.
fn without_health(scopes: &[ScopeSpans]) -> Cow<'_, [ScopeSpans]> {
    if !scopes.iter().flat_map(|scope| &scope.spans).any(is_health) {
        return Cow::Borrowed(scopes);
    }
    let kept = scopes.iter().filter_map(|scope| {
        let spans: Vec<Span> = scope
            .spans
            .iter()
            .filter(|span| !is_health(span))
            .cloned()
            .collect();
        (!spans.is_empty()).then(|| ScopeSpans {
            scope: scope.scope.clone(),
            spans,
            schema_url: scope.schema_url.clone(),
        })
    });
    Cow::Owned(kept.collect())
}

fn is_health(span: &Span) -> bool {
    let text = |key: &str| {
        let first = span.attributes.iter().find(|attribute| attribute.key == key)?;
        match first.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.as_str()),
            _ => None,
        }
    };
    let is_path = |path| is_health_path(path, false);
    let is_target = |target| is_health_path(target, true);
    text("url.path").is_some_and(is_path)
        || text("http.route").is_some_and(is_path)
        || text("http.target").is_some_and(is_target)
}

/// Whether `path` matches `^/(api/)?health(z|/|$)`, or has a query after `health` if `with_query`.
fn is_health_path(path: &str, with_query: bool) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    let below = path.strip_prefix("api/").unwrap_or(path);
    let Some(rest) = below.strip_prefix("health") else {
        return false;
    };
    match rest.as_bytes().first() {
        None | Some(b'z' | b'/') => true,
        Some(b'?') => with_query,
        Some(_) => false,
    }
}

fn with_environment<'a>(
    resource: Option<&'a Resource>,
    environment: Option<&str>,
) -> Option<Cow<'a, Resource>> {
    let Some(environment) = environment else {
        return resource.map(Cow::Borrowed);
    };
    let mut resource = resource.cloned().unwrap_or_default();
    resource
        .attributes
        .retain(|attribute| !ENVIRONMENT.contains(&attribute.key.as_str()));
    resource.attributes.extend(ENVIRONMENT.map(|key| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(environment.to_owned())),
        }),
        ..KeyValue::default()
    }));
    Some(Cow::Owned(resource))
}

/// Appends a `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`.
///
/// The three are encoded alike: each is field 1 of its export request, with the resource in field 1, the scopes in field
/// 2 and the schema URL in field 3.
fn append(request: &mut Vec<u8>, resource: Option<&Resource>, scopes: &[impl Message], schema_url: &String) {
    let resource_length = resource.map_or(0, |resource| message::encoded_len(1, resource));
    let schema_length = match schema_url.as_str() {
        "" => 0,
        _ => string::encoded_len(3, schema_url),
    };
    let length = resource_length + message::encoded_len_repeated(2, scopes) + schema_length;
    encode_key(1, WireType::LengthDelimited, request);
    encode_varint(length as u64, request);
    if let Some(resource) = resource {
        message::encode(1, resource, request);
    }
    message::encode_repeated(2, scopes, request);
    if !schema_url.is_empty() {
        string::encode(3, schema_url, request);
    }
}
