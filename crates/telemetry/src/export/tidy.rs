//! What is done to every signal before it leaves the process, on the export thread: one value for each key, the limits
//! of the specification that the SDK lacks, and masking. Spans are tidied as they are written, the others as messages.

use std::borrow::Cow;
use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
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
    /// The most attributes, for signals of which the SDK does not see to it.
    pub(crate) attribute_limit: Option<usize>,
}

impl Tidy {
    /// Log texts were masked when they were written to standard output; limits are left to do.
    pub(crate) fn logs(self, request: &mut ExportLogsServiceRequest) {
        for group in &mut request.resource_logs {
            group
                .resource
                .iter_mut()
                .for_each(|resource| self.resource(resource));
            for record in group
                .scope_logs
                .iter_mut()
                .flat_map(|scope| &mut scope.log_records)
            {
                keep_last(&mut record.attributes);
                record.dropped_attributes_count += self.drop_beyond_limit(&mut record.attributes);
            }
        }
    }

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

    fn drop_beyond_limit(self, attributes: &mut Vec<KeyValue>) -> u32 {
        let limit = self.attribute_limit.unwrap_or(usize::MAX);
        let beyond = attributes.len().saturating_sub(limit);
        attributes.truncate(limit);
        u32::try_from(beyond).unwrap_or(u32::MAX)
    }
}

/// `text` cut to `limit` characters; `None` when it is not longer.
pub(crate) fn truncated(text: &str, limit: usize) -> Option<&str> {
    text.char_indices().nth(limit).map(|(end, _)| &text[..end])
}

/// The SDK keeps every value that a key was given; OTLP allows one, and the last one counts.
fn keep_last(attributes: &mut Vec<KeyValue>) {
    let repeats = attributes.iter().enumerate().any(|(index, attribute)| {
        attributes[..index]
            .iter()
            .any(|earlier| earlier.key == attribute.key)
    });
    if !repeats {
        return;
    }
    let mut seen = HashSet::new();
    attributes.reverse();
    attributes.retain(|attribute| seen.insert(attribute.key.clone()));
    attributes.reverse();
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
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics};

    use super::*;

    const PLAIN: Tidy = Tidy {
        masking: false,
        value_limit: None,
        attribute_limit: None,
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
    fn the_last_value_of_a_key_is_kept() {
        let mut attributes = vec![
            attribute("user.id", 1),
            attribute("a", "x"),
            attribute("user.id", 2),
        ];
        keep_last(&mut attributes);
        assert_eq!(attributes, [attribute("a", "x"), attribute("user.id", 2)]);
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

    #[test]
    fn log_attributes_beyond_the_limit_are_dropped_and_counted() {
        let tidy = Tidy {
            attribute_limit: Some(2),
            ..PLAIN
        };
        let attributes = ["a", "b", "a", "c", "d"].map(|key| attribute(key, 1));
        let mut request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![LogRecord {
                        attributes: attributes.to_vec(),
                        ..LogRecord::default()
                    }],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        tidy.logs(&mut request);
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record.attributes, [attribute("b", 1), attribute("a", 1)]);
        assert_eq!(record.dropped_attributes_count, 2);
    }
}
