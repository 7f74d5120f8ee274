//! What is done to every signal before it leaves the process, on the export thread: one value for each key, the limits
//! of the specification that the SDK lacks, and masking. Spans and log records are tidied as they are written, metrics as messages.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::mask::mask;

/// What is done to one signal's attributes and texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tidy {
    /// Whether e-mail addresses are masked.
    pub(crate) masking: bool,
    /// The longest text of an attribute in characters.
    pub(crate) value_limit: Option<usize>,
}

impl Tidy {
    /// The specification's limits are not for metrics, whose attributes name a series.
    pub(crate) fn metrics(self, request: &mut ExportMetricsServiceRequest) {
        if !self.masking {
            return;
        }
        for group in &mut request.resource_metrics {
            group
                .resource
                .iter_mut()
                .for_each(|resource| self.resource(resource));
            for metric in group
                .scope_metrics
                .iter_mut()
                .flat_map(|scope| &mut scope.metrics)
            {
                mask_points(metric);
            }
        }
    }

    pub(crate) fn resource(self, resource: &mut Resource) {
        if self.masking {
            mask_attributes(&mut resource.attributes);
        }
    }

    /// `text` as it may leave.
    pub(crate) fn masked(self, text: &str) -> Cow<'_, str> {
        if self.masking {
            mask(text)
        } else {
            Cow::Borrowed(text)
        }
    }

    /// `text` cut to the limit of an attribute's.
    pub(crate) fn limited(self, text: &str) -> &str {
        self.value_limit
            .and_then(|limit| truncated(text, limit))
            .unwrap_or(text)
    }
}

/// `text` cut to `limit` characters; `None` when it is not longer.
pub(crate) fn truncated(text: &str, limit: usize) -> Option<&str> {
    text.char_indices().nth(limit).map(|(end, _)| &text[..end])
}

fn mask_points(metric: &mut Metric) {
    match &mut metric.data {
        Some(metric::Data::Gauge(gauge)) => {
            for point in &mut gauge.data_points {
                mask_point(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(metric::Data::Sum(sum)) => {
            for point in &mut sum.data_points {
                mask_point(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(metric::Data::Histogram(histogram)) => {
            for point in &mut histogram.data_points {
                mask_point(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(metric::Data::ExponentialHistogram(histogram)) => {
            for point in &mut histogram.data_points {
                mask_point(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(metric::Data::Summary(_)) | None => {}
    }
}

fn mask_point(attributes: &mut [KeyValue], exemplars: &mut [Exemplar]) {
    mask_attributes(attributes);
    for exemplar in exemplars {
        mask_attributes(&mut exemplar.filtered_attributes);
    }
}

fn mask_attributes(attributes: &mut [KeyValue]) {
    for attribute in attributes {
        mask_value(attribute.value.as_mut());
    }
}

fn mask_value(value: Option<&mut AnyValue>) {
    match value.and_then(|value| value.value.as_mut()) {
        Some(Value::StringValue(text)) => mask_text(text),
        Some(Value::ArrayValue(array)) => {
            array.values.iter_mut().for_each(|value| mask_value(Some(value)));
        }
        Some(Value::KvlistValue(list)) => mask_attributes(&mut list.values),
        _ => {}
    }
}

fn mask_text(text: &mut String) {
    if let Cow::Owned(masked) = mask(text) {
        *text = masked;
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics};

    use super::*;

    const PLAIN: Tidy = Tidy {
        masking: false,
        value_limit: None,
    };
    const MASKING: Tidy = Tidy {
        masking: true,
        ..PLAIN
    };

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
    fn points_exemplars_and_resources_are_masked() {
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
        MASKING.metrics(&mut request);
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
