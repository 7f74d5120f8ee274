//! Decoded OTLP export request of any signal.

use std::ops::Add;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::KeyValue,
    metrics::v1::{Exemplar, Metric, metric::Data},
};
#[cfg(any(test, feature = "forward"))]
use prost::Message as _;

/// OTLP signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// All signals, ordered by discriminant.
    pub(crate) const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Returns the name of the signal in the path of OTLP/HTTP.
    #[cfg(feature = "forward")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Number of items of each signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
}

impl Counts {
    pub(crate) fn of(count: impl Fn(Signal) -> u64) -> Self {
        Self {
            spans: count(Signal::Traces),
            logs: count(Signal::Logs),
            points: count(Signal::Metrics),
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            spans: self.spans + other.spans,
            logs: self.logs + other.logs,
            points: self.points + other.points,
        }
    }
}

/// Decoded export request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Export {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

impl Export {
    pub(crate) fn signal(&self) -> Signal {
        match self {
            Self::Traces(_) => Signal::Traces,
            Self::Metrics(_) => Signal::Metrics,
            Self::Logs(_) => Signal::Logs,
        }
    }

    /// Returns the number of spans, log records or metric points.
    pub(crate) fn items(&self) -> usize {
        match self {
            Self::Traces(request) => request
                .resource_spans
                .iter()
                .flat_map(|resource| &resource.scope_spans)
                .map(|scope| scope.spans.len())
                .sum(),
            Self::Metrics(request) => request
                .resource_metrics
                .iter()
                .flat_map(|resource| &resource.scope_metrics)
                .flat_map(|scope| &scope.metrics)
                .map(points)
                .sum(),
            Self::Logs(request) => request
                .resource_logs
                .iter()
                .flat_map(|resource| &resource.scope_logs)
                .map(|scope| scope.log_records.len())
                .sum(),
        }
    }

    /// Returns the length of the request encoded as protobuf, in bytes.
    #[cfg(any(test, feature = "forward"))]
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Traces(request) => request.encoded_len(),
            Self::Metrics(request) => request.encoded_len(),
            Self::Logs(request) => request.encoded_len(),
        }
    }
}

/// Returns the number of points of `metric`.
pub(crate) fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    }
}

/// Calls `visit` with the attributes and the exemplars of each point of `metric`.
pub(crate) fn for_each_point(
    metric: &mut Metric,
    mut visit: impl FnMut(&mut Vec<KeyValue>, &mut Vec<Exemplar>),
) {
    macro_rules! visit_each {
        ($data:ident) => {
            for point in &mut $data.data_points {
                visit(&mut point.attributes, &mut point.exemplars);
            }
        };
    }
    match &mut metric.data {
        Some(Data::Gauge(data)) => visit_each!(data),
        Some(Data::Sum(data)) => visit_each!(data),
        Some(Data::Histogram(data)) => visit_each!(data),
        Some(Data::ExponentialHistogram(data)) => visit_each!(data),
        Some(Data::Summary(data)) => {
            for point in &mut data.data_points {
                // A summary has no exemplars.
                visit(&mut point.attributes, &mut Vec::new());
            }
        }
        None => {}
    }
}
