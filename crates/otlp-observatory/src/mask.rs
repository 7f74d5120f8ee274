//! Masks e-mail addresses in received telemetry, like `transform/pii` in the collector's configuration, but in every
//! string, including keys, at any depth.
//!
//! The decoders limit the nesting of values, and therefore the recursion: `prost` to 100 messages, `serde_json` to 128
//! brackets.

use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};

use crate::export::{Export, for_each_point};

/// Masks every string in `export`: names, bodies, messages, keys and values.
pub(crate) fn mask(export: &mut Export) {
    match export {
        Export::Traces(request) => {
            for resource in &mut request.resource_spans {
                mask_resource(&mut resource.resource, &mut resource.schema_url);
                for scope in &mut resource.scope_spans {
                    mask_scope(&mut scope.scope, &mut scope.schema_url);
                    scope.spans.iter_mut().for_each(mask_span);
                }
            }
        }
        Export::Metrics(request) => {
            for resource in &mut request.resource_metrics {
                mask_resource(&mut resource.resource, &mut resource.schema_url);
                for scope in &mut resource.scope_metrics {
                    mask_scope(&mut scope.scope, &mut scope.schema_url);
                    scope.metrics.iter_mut().for_each(mask_metric);
                }
            }
        }
        Export::Logs(request) => {
            for resource in &mut request.resource_logs {
                mask_resource(&mut resource.resource, &mut resource.schema_url);
                for scope in &mut resource.scope_logs {
                    mask_scope(&mut scope.scope, &mut scope.schema_url);
                    scope.log_records.iter_mut().for_each(mask_log_record);
                }
            }
        }
    }
}

fn mask_resource(resource: &mut Option<Resource>, schema_url: &mut String) {
    mask_text(schema_url);
    if let Some(resource) = resource {
        mask_attributes(&mut resource.attributes);
        for entity in &mut resource.entity_refs {
            mask_text(&mut entity.schema_url);
            mask_text(&mut entity.r#type);
            entity.id_keys.iter_mut().for_each(mask_text);
            entity.description_keys.iter_mut().for_each(mask_text);
        }
    }
}

fn mask_scope(scope: &mut Option<InstrumentationScope>, schema_url: &mut String) {
    mask_text(schema_url);
    if let Some(scope) = scope {
        mask_text(&mut scope.name);
        mask_text(&mut scope.version);
        mask_attributes(&mut scope.attributes);
    }
}

fn mask_span(span: &mut Span) {
    mask_text(&mut span.name);
    mask_text(&mut span.trace_state);
    mask_attributes(&mut span.attributes);
    for event in &mut span.events {
        mask_text(&mut event.name);
        mask_attributes(&mut event.attributes);
    }
    for link in &mut span.links {
        mask_text(&mut link.trace_state);
        mask_attributes(&mut link.attributes);
    }
    if let Some(status) = &mut span.status {
        mask_text(&mut status.message);
    }
}

fn mask_log_record(record: &mut LogRecord) {
    mask_text(&mut record.severity_text);
    mask_text(&mut record.event_name);
    mask_attributes(&mut record.attributes);
    if let Some(body) = &mut record.body {
        mask_value(body);
    }
}

fn mask_metric(metric: &mut Metric) {
    mask_text(&mut metric.name);
    mask_text(&mut metric.description);
    mask_text(&mut metric.unit);
    mask_attributes(&mut metric.metadata);
    for_each_point(metric, |attributes, exemplars| {
        mask_attributes(attributes);
        for exemplar in exemplars {
            mask_attributes(&mut exemplar.filtered_attributes);
        }
    });
}

fn mask_attributes(attributes: &mut [KeyValue]) {
    for attribute in attributes {
        mask_text(&mut attribute.key);
        if let Some(value) = &mut attribute.value {
            mask_value(value);
        }
    }
}

fn mask_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::StringValue(text)) => mask_text(text),
        Some(Value::BytesValue(bytes)) => mask_bytes(bytes),
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(mask_value),
        Some(Value::KvlistValue(list)) => mask_attributes(&mut list.values),
        Some(
            Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_) | Value::StringValueStrindex(_),
        )
        | None => {}
    }
}

pub(crate) fn mask_text(text: &mut String) {
    if let Cow::Owned(masked) = telemetry::mask(text) {
        *text = masked;
    }
}

/// Masks bytes that are UTF-8.
fn mask_bytes(bytes: &mut Vec<u8>) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Cow::Owned(masked) = telemetry::mask(text)
    {
        *bytes = masked.into_bytes();
    }
}

#[cfg(test)]
mod tests;
