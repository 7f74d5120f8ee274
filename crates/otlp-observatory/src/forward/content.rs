//! What of an export is forwarded, as OTLP's protobuf: spans of health checks are left out and the environment is
//! written into every resource, as `filter/health` and `resource/environment` of the collector's configuration do.
//! The export itself is not changed, and not copied but for its resources.

use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
    trace::v1::{ScopeSpans, Span},
};
use prost::Message;

use crate::export::Export;

/// The attribute of semantic conventions 1.27 and later, and its name before.
const ENVIRONMENT: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

/// An export request, encoded.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) request: Vec<u8>,
    /// Spans, log records or data points.
    pub(super) items: u32,
}

/// Encodes `export` behind `reserved` bytes that are left for the caller; `None` when nothing of it is to be forwarded.
pub(super) fn content(export: &Export, environment: Option<&str>, reserved: usize) -> Option<Content> {
    let mut request = Vec::with_capacity(reserved + export.encoded_len() + 128);
    request.resize(reserved, 0);
    let mut items = 0;
    match export {
        Export::Traces(traces) => {
            for group in &traces.resource_spans {
                let scopes = without_health(&group.scope_spans);
                let count: usize = scopes.iter().map(|scope| scope.spans.len()).sum();
                items += count;
                if count > 0 {
                    let resource = with_environment(group.resource.as_ref(), environment);
                    append(&mut request, resource.as_deref(), &scopes, &group.schema_url);
                }
            }
        }
        Export::Metrics(metrics) => {
            for group in &metrics.resource_metrics {
                let of_group = group.scope_metrics.iter().flat_map(|scope| &scope.metrics);
                items += of_group.map(points).sum::<usize>();
                let resource = with_environment(group.resource.as_ref(), environment);
                append(
                    &mut request,
                    resource.as_deref(),
                    &group.scope_metrics,
                    &group.schema_url,
                );
            }
        }
        Export::Logs(logs) => {
            for group in &logs.resource_logs {
                items += group
                    .scope_logs
                    .iter()
                    .map(|scope| scope.log_records.len())
                    .sum::<usize>();
                let resource = with_environment(group.resource.as_ref(), environment);
                append(
                    &mut request,
                    resource.as_deref(),
                    &group.scope_logs,
                    &group.schema_url,
                );
            }
        }
    }
    (items > 0).then(|| Content {
        request,
        items: u32::try_from(items).unwrap_or(u32::MAX),
    })
}

/// The same scopes, unless one of them has a span of a health check.
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
    let text = |key: &str| match first(&span.attributes, key)?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.as_str()),
        _ => None,
    };
    let is_path = |path| is_health_path(path, false);
    let is_target = |target| is_health_path(target, true);
    text("url.path").is_some_and(is_path)
        || text("http.route").is_some_and(is_path)
        || text("http.target").is_some_and(is_target)
}

/// `^/(api/)?health(z|/|$)`, and a question mark may follow too where there can be a query.
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

fn first<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a KeyValue> {
    attributes.iter().find(|attribute| attribute.key == key)
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

fn points(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
    }
}

/// Appends one `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`. The three are encoded alike: they are field 1 of
/// their export request, and have the resource in field 1, the scopes in 2 and the address of the schema in 3.
fn append(request: &mut Vec<u8>, resource: Option<&Resource>, scopes: &[impl Message], schema_url: &str) {
    let schema_length = match schema_url.len() {
        0 => 0,
        length => framed(length),
    };
    let length = resource.map_or(0, |resource| framed(resource.encoded_len()))
        + scopes
            .iter()
            .map(|scope| framed(scope.encoded_len()))
            .sum::<usize>()
        + schema_length;
    begin(request, 1, length);
    if let Some(resource) = resource {
        message(request, 1, resource);
    }
    for scope in scopes {
        message(request, 2, scope);
    }
    if !schema_url.is_empty() {
        begin(request, 3, schema_url.len());
        request.extend_from_slice(schema_url.as_bytes());
    }
}

fn message(request: &mut Vec<u8>, field: u8, message: &impl Message) {
    begin(request, field, message.encoded_len());
    message.encode(request).expect("a vector grows as needed");
}

/// How long a field of `length` bytes is with its tag and length.
fn framed(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

/// The tag and the length of a length-delimited field.
fn begin(request: &mut Vec<u8>, field: u8, length: usize) {
    const LENGTH_DELIMITED: u8 = 2;
    request.push(field << 3 | LENGTH_DELIMITED);
    prost::encode_length_delimiter(length, request).expect("a vector grows as needed");
}
