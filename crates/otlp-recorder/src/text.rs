//! The rules for exported text: redaction by a function that the program provides, and the limit on the
//! length of attribute values.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::merge::{deduplicate_keys, merge_points};
use crate::points::{metrics_of, visit_points};

/// A function that removes confidential parts, such as e-mail addresses, from a string.
///
/// Runs for every recorded string, on the recording thread. Should return `Cow::Borrowed` if there is nothing
/// to remove.
pub type Redact = fn(&str) -> Cow<'_, str>;

/// The text rules of one signal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextRules {
    pub(crate) redact: Option<Redact>,
    /// Maximum length of a string attribute, in characters.
    pub(crate) value_limit: Option<usize>,
}

impl TextRules {
    /// Redacts all text of a request for metrics, and merges the points of a metric whose attributes become equal.
    /// The length limit does not apply, because the attributes of a metric identify a series.
    pub(crate) fn apply_to_metrics(self, request: &mut ExportMetricsServiceRequest) {
        let Some(redact) = self.redact else { return };
        for group in &mut request.resource_metrics {
            if let Some(resource) = &mut group.resource {
                self.apply_to_resource(resource);
            }
            for scope in group
                .scope_metrics
                .iter_mut()
                .filter_map(|group| group.scope.as_mut())
            {
                self.apply_to_scope(scope);
            }
        }
        for metric in metrics_of(request) {
            for text in [&mut metric.name, &mut metric.description, &mut metric.unit] {
                redact_text(redact, text);
            }
            redact_attributes(redact, &mut metric.metadata);
            let mut changed = false;
            visit_points(metric, |attributes, exemplars| {
                changed |= redact_attributes(redact, attributes);
                for exemplar in exemplars {
                    redact_attributes(redact, &mut exemplar.filtered_attributes);
                }
            });
            if changed {
                merge_points(metric);
            }
        }
    }

    pub(crate) fn apply_to_resource(self, resource: &mut Resource) {
        if let Some(redact) = self.redact
            && redact_attributes(redact, &mut resource.attributes)
        {
            deduplicate_keys(&mut resource.attributes);
        }
    }

    pub(crate) fn apply_to_scope(self, scope: &mut InstrumentationScope) {
        if let Some(redact) = self.redact {
            redact_text(redact, &mut scope.name);
            redact_text(redact, &mut scope.version);
            if redact_attributes(redact, &mut scope.attributes) {
                deduplicate_keys(&mut scope.attributes);
            }
        }
    }

    pub(crate) fn redacted(self, text: &str) -> Cow<'_, str> {
        self.redact.map_or(Cow::Borrowed(text), |redact| redact(text))
    }

    /// Truncates `text` to the limit.
    #[inline]
    pub(crate) fn limited(self, text: &str) -> &str {
        let end = self.value_limit.and_then(|limit| text.char_indices().nth(limit));
        end.map_or(text, |(end, _)| &text[..end])
    }
}

/// Redacts keys and values; returns whether any has changed.
fn redact_attributes(redact: Redact, attributes: &mut [KeyValue]) -> bool {
    let mut changed = false;
    for attribute in attributes {
        changed |= redact_text(redact, &mut attribute.key);
        changed |= redact_value(redact, attribute.value.as_mut());
    }
    changed
}

fn redact_value(redact: Redact, value: Option<&mut AnyValue>) -> bool {
    match value.and_then(|value| value.value.as_mut()) {
        Some(Value::StringValue(text)) => redact_text(redact, text),
        Some(Value::ArrayValue(array)) => {
            let redacted = array
                .values
                .iter_mut()
                .map(|value| redact_value(redact, Some(value)));
            redacted.fold(false, |changed, more| changed | more)
        }
        Some(Value::KvlistValue(list)) => redact_attributes(redact, &mut list.values),
        _ => false,
    }
}

fn redact_text(redact: Redact, text: &mut String) -> bool {
    let Cow::Owned(redacted) = redact(text) else {
        return false;
    };
    *text = redacted;
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{
        Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric,
    };

    use super::*;

    /// Hides the local part of e-mail addresses, for the tests of this crate.
    pub(crate) fn redact_mail(text: &str) -> Cow<'_, str> {
        if !text.contains("@example.com") {
            return Cow::Borrowed(text);
        }
        let mut redacted = text.to_owned();
        for name in ["alice", "bob", "carol"] {
            let hidden = format!("{}***@", &name[..2]);
            redacted = redacted.replace(&format!("{name}@"), &hidden);
        }
        Cow::Owned(redacted)
    }

    fn value(value: impl Into<opentelemetry::Value>) -> Option<AnyValue> {
        Some(value.into().into())
    }

    fn attribute(key: &str, text: impl Into<opentelemetry::Value>) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: value(text),
            ..KeyValue::default()
        }
    }

    #[test]
    fn points_exemplars_and_resources_are_redacted() {
        let mut request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: vec![attribute("owner", "alice@example.com")],
                    ..Resource::default()
                }),
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![Metric {
                        data: Some(metric::Data::Gauge(Gauge {
                            data_points: vec![NumberDataPoint {
                                attributes: vec![attribute("queue", "bob@example.com")],
                                exemplars: vec![Exemplar {
                                    filtered_attributes: vec![attribute("who", "carol@example.com")],
                                    ..Exemplar::default()
                                }],
                                ..NumberDataPoint::default()
                            }],
                        })),
                        ..Metric::default()
                    }],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        let rules = TextRules {
            redact: Some(redact_mail),
            value_limit: None,
        };
        rules.apply_to_metrics(&mut request);
        let shown = format!("{request:?}");
        for (mail, hidden) in [
            ("alice@", "al***@example.com"),
            ("bob@", "bo***@example.com"),
            ("carol@", "ca***@example.com"),
        ] {
            assert!(!shown.contains(mail) && shown.contains(hidden), "{shown}");
        }
    }
}
