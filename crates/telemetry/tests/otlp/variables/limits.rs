//! How much a span, a log record or a metric has, and of what kind: the limits of attributes, the sampler's argument, the
//! resource, and the preferences of the metric exporter.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use telemetry::{KeyValue, Span};

use super::{LONG, record};
use crate::support::{self, Behaviour, Problem, Run, value};

/// A span and a log record with five attributes each of their own, of eight characters.
fn many_attributes() {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    let span = ["a", "b", "c", "d", "e"]
        .into_iter()
        .fold(Span::internal("one"), |span, key| {
            span.attribute(KeyValue::new(key, "12345678"))
        });
    let work = async {
        let text = "12345678";
        tracing::info!(a = text, b = text, c = text, d = text, e = text, "one");
        Ok::<_, Problem>(())
    };
    support::block_on(span.run(work)).unwrap();
    telemetry.shutdown(LONG).unwrap();
}

fn run_with(test: &str, environment: &[(&str, &str)], scenario: impl FnOnce()) -> Option<Run> {
    let name = format!("variables::limits::{test}");
    support::run(&name, Behaviour::Takes, environment, scenario)
}

/// How many attributes were kept and dropped of the span and of the log record.
fn counts(run: &Run) -> [(usize, u32); 2] {
    let (span, log) = (run.received.span("one"), run.received.log("one"));
    [
        (span.attributes.len(), span.dropped_attributes_count),
        (log.attributes.len(), log.dropped_attributes_count),
    ]
}

/// How long the texts of the attribute `a` are in the span and in the log record.
fn lengths(run: &Run) -> [usize; 2] {
    let attributes = [
        &run.received.span("one").attributes,
        &run.received.log("one").attributes,
    ];
    attributes.map(|attributes| value(attributes, "a").unwrap().trim_matches('"').len())
}

#[test]
fn without_limits_everything_is_kept() {
    if let Some(run) = run_with("without_limits_everything_is_kept", &[], many_attributes) {
        let [span, log] = counts(&run);
        assert_eq!((span, log.1), ((5, 0), 0));
        assert!(log.0 >= 5);
        assert_eq!(lengths(&run), [8, 8]);
    }
}

#[test]
fn the_general_count_limit_holds_for_spans_and_logs() {
    let environment = [("OTEL_ATTRIBUTE_COUNT_LIMIT", "2")];
    let name = "the_general_count_limit_holds_for_spans_and_logs";
    if let Some(run) = run_with(name, &environment, many_attributes) {
        let [span, log] = counts(&run);
        assert_eq!(span, (2, 3));
        assert!(log.0 == 2 && log.1 >= 3, "{log:?}");
    }
}

#[test]
fn the_count_limit_of_spans_goes_before_the_general_one() {
    let environment = [
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "2"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "4"),
    ];
    let name = "the_count_limit_of_spans_goes_before_the_general_one";
    if let Some(run) = run_with(name, &environment, many_attributes) {
        let [span, log] = counts(&run);
        assert_eq!((span, log.0), ((3, 2), 4));
    }
}

#[test]
fn the_general_length_limit_holds_for_spans_and_logs() {
    let environment = [("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")];
    let name = "the_general_length_limit_holds_for_spans_and_logs";
    if let Some(run) = run_with(name, &environment, many_attributes) {
        assert_eq!(lengths(&run), [3, 3]);
    }
}

#[test]
fn a_length_limit_of_one_signal_goes_before_the_general_one() {
    let environment = [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4"),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5"),
    ];
    let name = "a_length_limit_of_one_signal_goes_before_the_general_one";
    if let Some(run) = run_with(name, &environment, many_attributes) {
        assert_eq!(lengths(&run), [4, 5]);
    }
}

/// Three events, and three links where the API of spans has them.
fn many_events() {
    use opentelemetry::trace::{
        Span as _, SpanContext, SpanId, TraceFlags, TraceId, TraceState, Tracer as _,
    };

    let telemetry = telemetry::init(support::SERVICE).unwrap();
    let mut span = opentelemetry::global::tracer("test").start("one");
    let attributes = ["a", "b", "c"].map(|key| KeyValue::new(key, 1));
    for number in 1..=3_u32 {
        span.add_event("event", attributes.to_vec());
        let (trace, own) = (TraceId::from(u128::from(number)), SpanId::from(u64::from(number)));
        let linked = SpanContext::new(trace, own, TraceFlags::SAMPLED, true, TraceState::default());
        span.add_link(linked, attributes.to_vec());
    }
    span.end();
    telemetry.shutdown(LONG).unwrap();
}

#[test]
fn events_and_links_have_limits_of_their_own() {
    let environment = [
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "2"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "1"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "2"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "1"),
    ];
    let name = "events_and_links_have_limits_of_their_own";
    if let Some(run) = run_with(name, &environment, many_events) {
        let span = run.received.span("one");
        assert_eq!((span.events.len(), span.dropped_events_count), (2, 1));
        assert_eq!((span.links.len(), span.dropped_links_count), (1, 2));
        assert_eq!(span.events[0].attributes.len(), 2);
        assert_eq!(span.links[0].attributes.len(), 1);
    }
}

#[test]
fn the_samplers_argument_is_the_share_of_traces() {
    for (share, spans) in [("0", 0), ("1", 1)] {
        let environment = [
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", share),
        ];
        let name = "the_samplers_argument_is_the_share_of_traces";
        let Some(run) = run_with(name, &environment, record) else {
            return;
        };
        assert_eq!(run.received.spans.len(), spans, "{share}");
    }
}

#[test]
fn the_resource_has_the_attributes_of_the_variable() {
    let environment = [
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=pro%2Cd,service.name=other",
        ),
        ("OTEL_SERVICE_NAME", "named"),
    ];
    let name = "the_resource_has_the_attributes_of_the_variable";
    if let Some(run) = run_with(name, &environment, record) {
        assert_eq!(run.received.resources.len(), 3);
        for resource in &run.received.resources {
            let of = |key| value(&resource.attributes, key).unwrap();
            assert_eq!(of("deployment.environment.name"), "\"pro,d\"");
            assert_eq!(of("service.name"), "\"named\"");
        }
    }
}

#[test]
fn without_a_name_the_service_has_its_default() {
    if let Some(run) = run_with("without_a_name_the_service_has_its_default", &[], record) {
        let resource = &run.received.resources[0].attributes;
        assert_eq!(value(resource, "service.name").unwrap(), "\"test-service\"");
    }
}

/// A counter, an up-down counter and a histogram.
fn measure() {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    super::one_of_each();
    let active = telemetry::meter().i64_up_down_counter("active").build();
    active.add(1, &[]);
    let times = telemetry::meter()
        .f64_histogram("times")
        .with_boundaries(vec![1.0, 2.0])
        .build();
    times.record(1.5, &[]);
    telemetry.shutdown(LONG).unwrap();
}

fn temporality(metric: &Metric) -> AggregationTemporality {
    let number = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.aggregation_temporality,
        Data::Histogram(histogram) => histogram.aggregation_temporality,
        other => panic!("{other:?}"),
    };
    number.try_into().unwrap()
}

#[test]
fn the_temporality_is_the_preferred_one() {
    use AggregationTemporality::{Cumulative, Delta};

    for (preference, expected) in [
        (None, [Cumulative, Cumulative, Cumulative]),
        (Some("cumulative"), [Cumulative, Cumulative, Cumulative]),
        (Some("Delta"), [Delta, Cumulative, Delta]),
        (Some("lowmemory"), [Delta, Cumulative, Delta]),
    ] {
        let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let environment: Vec<_> = preference
            .map(|preference| (variable, preference))
            .into_iter()
            .collect();
        let Some(run) = run_with("the_temporality_is_the_preferred_one", &environment, measure) else {
            return;
        };
        let found = ["ones", "active", "times"].map(|name| temporality(&run.received.metric(name)));
        assert_eq!(found, expected, "{preference:?}");
    }
}

#[test]
fn histograms_are_of_the_preferred_kind() {
    let environment = [(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "base2_exponential_bucket_histogram",
    )];
    if let Some(run) = run_with("histograms_are_of_the_preferred_kind", &environment, measure) {
        let data = run.received.metric("times").data;
        let Some(Data::ExponentialHistogram(histogram)) = data else {
            panic!("{data:?}");
        };
        assert_eq!(histogram.data_points[0].count, 1);
        assert_eq!(run.received.numbers("ones").len(), 1);
    }
}

#[test]
fn histograms_have_explicit_buckets_otherwise() {
    if let Some(run) = run_with("histograms_have_explicit_buckets_otherwise", &[], measure) {
        assert_eq!(run.received.histogram("times")[0].explicit_bounds, [1.0, 2.0]);
    }
}
