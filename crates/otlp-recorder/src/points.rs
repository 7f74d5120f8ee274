//! Iteration over the data points of an export request, and their identity.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Gauge, Metric, Sum, metric::Data};
use prost::Message;

/// Returns the metrics of all resources and scopes.
pub(crate) fn metrics_of(request: &mut ExportMetricsServiceRequest) -> impl Iterator<Item = &mut Metric> {
    request
        .resource_metrics
        .iter_mut()
        .flat_map(|group| &mut group.scope_metrics)
        .flat_map(|scope| &mut scope.metrics)
}

/// Calls `visit` with the attributes and the exemplars of each data point. The SDK creates no summaries.
pub(crate) fn visit_points(metric: &mut Metric, mut visit: impl FnMut(&mut [KeyValue], &mut Vec<Exemplar>)) {
    match &mut metric.data {
        Some(Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. })) => {
            for point in data_points {
                visit(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(Data::Histogram(histogram)) => {
            for point in &mut histogram.data_points {
                visit(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            for point in &mut histogram.data_points {
                visit(&mut point.attributes, &mut point.exemplars);
            }
        }
        Some(Data::Summary(_)) | None => {}
    }
}

/// Returns the attributes as bytes that do not depend on their order.
pub(crate) fn identity(attributes: &[KeyValue]) -> Vec<u8> {
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    sorted
        .into_iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect()
}
