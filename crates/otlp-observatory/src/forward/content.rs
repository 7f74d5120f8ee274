//! Selects and encodes the forwarded part of an export: omits spans of health checks, and writes the deployment
//! environment into every resource, like `filter/health` and `resource/environment` in the collector's configuration.
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

/// Resource attribute since semantic conventions 1.27, and its earlier name.
const ENVIRONMENT: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

/// Encoded export request.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) request: Vec<u8>,
    /// Number of spans, log records or metric points.
    pub(super) items: u32,
}

/// Encodes `export` after `reserved` bytes, which the caller fills. Returns `None` if there is nothing to forward.
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
                    append(&mut request, resource, &scopes, &group.schema_url);
                }
            }
        }
        Export::Metrics(metrics) => {
            for group in &metrics.resource_metrics {
                let resource = with_environment(group.resource.as_ref(), environment);
                append(&mut request, resource, &group.scope_metrics, &group.schema_url);
            }
        }
        Export::Logs(logs) => {
            for group in &logs.resource_logs {
                let resource = with_environment(group.resource.as_ref(), environment);
                append(&mut request, resource, &group.scope_logs, &group.schema_url);
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
    span.attributes.iter().any(|attribute| {
        let with_query = match attribute.key.as_str() {
            "url.path" | "http.route" => false,
            "http.target" => true,
            _ => return false,
        };
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        matches!(value, Some(Value::StringValue(path)) if is_health_path(path, with_query))
    })
}

/// Whether `path` matches `^/(api/)?health(z|/|$)`, or has a query after `health` if `with_query`.
fn is_health_path(path: &str, with_query: bool) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    let path = path.strip_prefix("api/").unwrap_or(path);
    let Some(rest) = path.strip_prefix("health") else {
        return false;
    };
    rest.is_empty() || rest.starts_with(['z', '/']) || (with_query && rest.starts_with('?'))
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
/// The three have the same encoding: each is field 1 of its export request, with the resource in field 1, the scopes in
/// field 2 and the schema URL in field 3.
fn append(
    request: &mut Vec<u8>,
    resource: Option<Cow<'_, Resource>>,
    scopes: &[impl Message],
    schema_url: &String,
) {
    let resource_length = resource
        .as_ref()
        .map_or(0, |resource| message::encoded_len(1, &**resource));
    let schema_length = match schema_url.as_str() {
        "" => 0,
        _ => string::encoded_len(3, schema_url),
    };
    let length = resource_length + message::encoded_len_repeated(2, scopes) + schema_length;
    encode_key(1, WireType::LengthDelimited, request);
    encode_varint(length as u64, request);
    if let Some(resource) = resource {
        message::encode(1, &*resource, request);
    }
    message::encode_repeated(2, scopes, request);
    if !schema_url.is_empty() {
        string::encode(3, schema_url, request);
    }
}
