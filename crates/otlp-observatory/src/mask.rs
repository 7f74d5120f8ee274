//! Masks e-mail addresses and tokens in received telemetry: in every string, including keys, at any depth.
//! Points that have the same attributes afterwards become one point. `docs/masking.md` compares the result with
//! the collector's.
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
            for key in entity.id_keys.iter_mut().chain(&mut entity.description_keys) {
                mask_text(key);
            }
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
    mask_trace_state(&mut span.trace_state);
    mask_attributes(&mut span.attributes);
    for event in &mut span.events {
        mask_text(&mut event.name);
        mask_attributes(&mut event.attributes);
    }
    for link in &mut span.links {
        mask_trace_state(&mut link.trace_state);
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
    let mut changed = false;
    for_each_point(metric, |attributes, exemplars| {
        changed |= mask_attributes(attributes);
        for exemplar in exemplars {
            mask_attributes(&mut exemplar.filtered_attributes);
        }
    });
    if changed {
        otlp_recorder::merge_points(metric);
    }
}

/// Masks keys and values, and keeps the last of the attributes whose keys are then equal. Returns whether any has
/// changed.
fn mask_attributes(attributes: &mut Vec<KeyValue>) -> bool {
    let (mut keys, mut values) = (false, false);
    for attribute in &mut *attributes {
        keys |= mask_text(&mut attribute.key);
        values |= attribute.value.as_mut().is_some_and(mask_value);
    }
    if keys {
        otlp_recorder::deduplicate_keys(attributes);
    }
    keys | values
}

fn mask_value(value: &mut AnyValue) -> bool {
    match &mut value.value {
        Some(Value::StringValue(text)) => mask_text(text),
        Some(Value::BytesValue(bytes)) => mask_bytes(bytes),
        Some(Value::ArrayValue(array)) => {
            let masked = array.values.iter_mut().map(mask_value);
            masked.fold(false, |changed, more| changed | more)
        }
        Some(Value::KvlistValue(list)) => mask_attributes(&mut list.values),
        Some(
            Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_) | Value::StringValueStrindex(_),
        )
        | None => false,
    }
}

/// Masks the members by parts, because a key and a value may look like an address together.
fn mask_trace_state(state: &mut String) {
    if let Cow::Owned(_) = telemetry::mask(state) {
        let parts = state.split_inclusive([',', '=']).map(telemetry::mask);
        *state = parts.collect();
    }
}

fn mask_text(text: &mut String) -> bool {
    let Cow::Owned(masked) = telemetry::mask(text) else {
        return false;
    };
    *text = masked;
    true
}

/// Masks bytes that are UTF-8.
fn mask_bytes(bytes: &mut Vec<u8>) -> bool {
    let masked = str::from_utf8(bytes).map(telemetry::mask);
    let Ok(Cow::Owned(masked)) = masked else {
        return false;
    };
    *bytes = masked.into_bytes();
    true
}

#[cfg(test)]
mod tests;
