//! JSON encoding of metrics.

use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint,
};
use serde_json::Value;

use super::fields::{Fields, double, key_value};

pub(super) fn metric(metric: &Metric) -> Fields {
    let fields = Fields::new()
        .text("name", &metric.name)
        .text("description", &metric.description)
        .text("unit", &metric.unit)
        .list("metadata", &metric.metadata, key_value);
    let (name, data) = match &metric.data {
        None => return fields,
        Some(Data::Gauge(gauge)) => (
            "gauge",
            Fields::new().list("dataPoints", &gauge.data_points, number_point),
        ),
        Some(Data::Sum(sum)) => (
            "sum",
            Fields::new()
                .list("dataPoints", &sum.data_points, number_point)
                .number("aggregationTemporality", sum.aggregation_temporality)
                .truth("isMonotonic", sum.is_monotonic),
        ),
        Some(Data::Histogram(histogram)) => (
            "histogram",
            Fields::new()
                .list("dataPoints", &histogram.data_points, histogram_point)
                .number("aggregationTemporality", histogram.aggregation_temporality),
        ),
        Some(Data::ExponentialHistogram(histogram)) => (
            "exponentialHistogram",
            Fields::new()
                .list("dataPoints", &histogram.data_points, exponential_point)
                .number("aggregationTemporality", histogram.aggregation_temporality),
        ),
        Some(Data::Summary(summary)) => (
            "summary",
            Fields::new().list("dataPoints", &summary.data_points, summary_point),
        ),
    };
    fields.message(name, Some(data))
}

fn number_point(point: &NumberDataPoint) -> Fields {
    let fields = Fields::new()
        .list("attributes", &point.attributes, key_value)
        .long("startTimeUnixNano", point.start_time_unix_nano)
        .long("timeUnixNano", point.time_unix_nano)
        .list("exemplars", &point.exemplars, exemplar)
        .number("flags", point.flags);
    match point.value {
        None => fields,
        Some(NumberValue::AsDouble(number)) => fields.put("asDouble", double(number)),
        Some(NumberValue::AsInt(number)) => fields.put("asInt", number.to_string()),
    }
}

fn histogram_point(point: &HistogramDataPoint) -> Fields {
    Fields::new()
        .list("attributes", &point.attributes, key_value)
        .long("startTimeUnixNano", point.start_time_unix_nano)
        .long("timeUnixNano", point.time_unix_nano)
        .long("count", point.count)
        .optional("sum", point.sum)
        .values("bucketCounts", &point.bucket_counts, long)
        .values("explicitBounds", &point.explicit_bounds, |bound| double(*bound))
        .list("exemplars", &point.exemplars, exemplar)
        .number("flags", point.flags)
        .optional("min", point.min)
        .optional("max", point.max)
}

fn exponential_point(point: &ExponentialHistogramDataPoint) -> Fields {
    Fields::new()
        .list("attributes", &point.attributes, key_value)
        .long("startTimeUnixNano", point.start_time_unix_nano)
        .long("timeUnixNano", point.time_unix_nano)
        .long("count", point.count)
        .optional("sum", point.sum)
        .number("scale", point.scale)
        .long("zeroCount", point.zero_count)
        .message("positive", point.positive.as_ref().map(buckets))
        .message("negative", point.negative.as_ref().map(buckets))
        .number("flags", point.flags)
        .list("exemplars", &point.exemplars, exemplar)
        .optional("min", point.min)
        .optional("max", point.max)
        .optional("zeroThreshold", Some(point.zero_threshold))
}

fn buckets(buckets: &Buckets) -> Fields {
    Fields::new()
        .number("offset", buckets.offset)
        .values("bucketCounts", &buckets.bucket_counts, long)
}

fn summary_point(point: &SummaryDataPoint) -> Fields {
    Fields::new()
        .list("attributes", &point.attributes, key_value)
        .long("startTimeUnixNano", point.start_time_unix_nano)
        .long("timeUnixNano", point.time_unix_nano)
        .long("count", point.count)
        .optional("sum", Some(point.sum))
        .list("quantileValues", &point.quantile_values, quantile)
        .number("flags", point.flags)
}

fn quantile(value: &ValueAtQuantile) -> Fields {
    Fields::new()
        .optional("quantile", Some(value.quantile))
        .optional("value", Some(value.value))
}

fn exemplar(exemplar: &Exemplar) -> Fields {
    let fields = Fields::new()
        .list("filteredAttributes", &exemplar.filtered_attributes, key_value)
        .long("timeUnixNano", exemplar.time_unix_nano)
        .id("spanId", &exemplar.span_id)
        .id("traceId", &exemplar.trace_id);
    match exemplar.value {
        None => fields,
        Some(ExemplarValue::AsDouble(number)) => fields.put("asDouble", double(number)),
        Some(ExemplarValue::AsInt(number)) => fields.put("asInt", number.to_string()),
    }
}

fn long(number: &u64) -> Value {
    number.to_string().into()
}
