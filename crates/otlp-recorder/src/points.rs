//! Iteration over the data points of an export request.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Gauge, Metric, Sum, metric::Data};

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
