//! Messages of `opentelemetry/proto/metrics/v1/metrics.proto`.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
        SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};

use super::{
    fields::{List, Object, message},
    scalars::{Double, Doubles, Enumeration, Flag, Hex, Integer, Integers, Names, Text},
};

message!(ExportMetricsServiceRequest {
    "resourceMetrics" => resource_metrics: List<ResourceMetrics>,
});

message!(ResourceMetrics {
    "resource" => optional resource: Object<Resource>,
    "scopeMetrics" => scope_metrics: List<ScopeMetrics>,
    "schemaUrl" => schema_url: Text,
});

message!(ScopeMetrics {
    "scope" => optional scope: Object<InstrumentationScope>,
    "metrics" => metrics: List<Metric>,
    "schemaUrl" => schema_url: Text,
});

message!(Metric {
    "name" => name: Text,
    "description" => description: Text,
    "unit" => unit: Text,
    "metadata" => metadata: List<KeyValue>,
    "gauge" => data = Data::Gauge: Object<Gauge>,
    "sum" => data = Data::Sum: Object<Sum>,
    "histogram" => data = Data::Histogram: Object<Histogram>,
    "exponentialHistogram" => data = Data::ExponentialHistogram: Object<ExponentialHistogram>,
    "summary" => data = Data::Summary: Object<Summary>,
});

message!(Gauge {
    "dataPoints" => data_points: List<NumberDataPoint>,
});

message!(Sum {
    "dataPoints" => data_points: List<NumberDataPoint>,
    "aggregationTemporality" => aggregation_temporality: Enumeration<AggregationTemporality>,
    "isMonotonic" => is_monotonic: Flag,
});

message!(Histogram {
    "dataPoints" => data_points: List<HistogramDataPoint>,
    "aggregationTemporality" => aggregation_temporality: Enumeration<AggregationTemporality>,
});

message!(ExponentialHistogram {
    "dataPoints" => data_points: List<ExponentialHistogramDataPoint>,
    "aggregationTemporality" => aggregation_temporality: Enumeration<AggregationTemporality>,
});

message!(Summary {
    "dataPoints" => data_points: List<SummaryDataPoint>,
});

message!(NumberDataPoint {
    "attributes" => attributes: List<KeyValue>,
    "startTimeUnixNano" => start_time_unix_nano: Integer<u64>,
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "exemplars" => exemplars: List<Exemplar>,
    "flags" => flags: Integer<u32>,
    "asDouble" => value = number_data_point::Value::AsDouble: Double,
    "asInt" => value = number_data_point::Value::AsInt: Integer<i64>,
});

message!(HistogramDataPoint {
    "attributes" => attributes: List<KeyValue>,
    "startTimeUnixNano" => start_time_unix_nano: Integer<u64>,
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "count" => count: Integer<u64>,
    "sum" => optional sum: Double,
    "bucketCounts" => bucket_counts: Integers<u64>,
    "explicitBounds" => explicit_bounds: Doubles,
    "exemplars" => exemplars: List<Exemplar>,
    "flags" => flags: Integer<u32>,
    "min" => optional min: Double,
    "max" => optional max: Double,
});

message!(ExponentialHistogramDataPoint {
    "attributes" => attributes: List<KeyValue>,
    "startTimeUnixNano" => start_time_unix_nano: Integer<u64>,
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "count" => count: Integer<u64>,
    "sum" => optional sum: Double,
    "scale" => scale: Integer<i32>,
    "zeroCount" => zero_count: Integer<u64>,
    "positive" => optional positive: Object<Buckets>,
    "negative" => optional negative: Object<Buckets>,
    "flags" => flags: Integer<u32>,
    "exemplars" => exemplars: List<Exemplar>,
    "min" => optional min: Double,
    "max" => optional max: Double,
    "zeroThreshold" => zero_threshold: Double,
});

message!(Buckets {
    "offset" => offset: Integer<i32>,
    "bucketCounts" => bucket_counts: Integers<u64>,
});

message!(SummaryDataPoint {
    "attributes" => attributes: List<KeyValue>,
    "startTimeUnixNano" => start_time_unix_nano: Integer<u64>,
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "count" => count: Integer<u64>,
    "sum" => sum: Double,
    "quantileValues" => quantile_values: List<ValueAtQuantile>,
    "flags" => flags: Integer<u32>,
});

message!(ValueAtQuantile {
    "quantile" => quantile: Double,
    "value" => value: Double,
});

message!(Exemplar {
    "filteredAttributes" => filtered_attributes: List<KeyValue>,
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "asDouble" => value = exemplar::Value::AsDouble: Double,
    "asInt" => value = exemplar::Value::AsInt: Integer<i64>,
    "spanId" => span_id: Hex,
    "traceId" => trace_id: Hex,
});

impl Names for AggregationTemporality {
    fn number(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}
