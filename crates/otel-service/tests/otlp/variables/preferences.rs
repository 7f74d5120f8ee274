//! The argument of the sampler, the resource, and the preferences of the metric exporter.

use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};

use super::{LONG, record};
use crate::support::{self, Behaviour, Run, value};

fn run_with(test: &str, environment: &[(&str, &str)], scenario: impl FnOnce()) -> Option<Run> {
    let name = format!("variables::preferences::{test}");
    support::run(&name, Behaviour::Accepts, environment, scenario)
}

#[test]
fn the_sampler_argument_is_the_ratio_of_traces() {
    for (share, spans) in [("0", 0), ("1", 1)] {
        let environment = [
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", share),
        ];
        let name = "the_sampler_argument_is_the_ratio_of_traces";
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
            let attribute = |key| value(&resource.attributes, key).unwrap();
            assert_eq!(attribute("deployment.environment.name"), "\"pro,d\"");
            assert_eq!(attribute("service.name"), "\"named\"");
        }
    }
}

#[test]
fn the_service_has_a_default_name() {
    if let Some(run) = run_with("the_service_has_a_default_name", &[], record) {
        let resource = &run.received.resources[0].attributes;
        assert_eq!(value(resource, "service.name").unwrap(), "\"test-service\"");
    }
}

/// Records a counter, an up-down counter and a histogram.
fn measure() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    super::one_of_each();
    let active = otel_service::meter().i64_up_down_counter("active").build();
    active.add(1, &[]);
    otel_service::histogram("times", "").record(Duration::from_millis(1_500), &[]);
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
fn the_temporality_preference_is_used() {
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
        let Some(run) = run_with("the_temporality_preference_is_used", &environment, measure) else {
            return;
        };
        let found = ["ones", "active", "times"].map(|name| temporality(&run.received.metric(name)));
        assert_eq!(found, expected, "{preference:?}");
    }
}

#[test]
fn the_histogram_aggregation_preference_is_used() {
    let environment = [(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "base2_exponential_bucket_histogram",
    )];
    if let Some(run) = run_with(
        "the_histogram_aggregation_preference_is_used",
        &environment,
        measure,
    ) {
        let data = run.received.metric("times").data;
        let Some(Data::ExponentialHistogram(histogram)) = data else {
            panic!("{data:?}");
        };
        assert_eq!(histogram.data_points[0].count, 1);
        assert_eq!(run.received.numbers("ones").len(), 1);
    }
}

#[test]
fn histograms_have_explicit_buckets_by_default() {
    if let Some(run) = run_with("histograms_have_explicit_buckets_by_default", &[], measure) {
        let bounds = &run.received.histogram("times")[0].explicit_bounds;
        assert_eq!((bounds.len(), bounds[0], bounds[13]), (14, 0.005, 10.0));
    }
}

#[test]
fn the_level_of_messages_about_the_export_is_configurable() {
    let name = "variables::preferences::the_level_of_messages_about_the_export_is_configurable";
    for (level, rust_log, is_logged) in [
        (None, "info", true),
        (Some("none"), "info", false),
        (Some("warn"), "off", true),
        (Some("loud"), "info", true),
    ] {
        let mut environment = vec![("RUST_LOG", rust_log)];
        environment.extend(level.map(|level| ("OTEL_LOG_LEVEL", level)));
        let run = support::run(name, Behaviour::Down, &environment, || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            super::one_of_each();
            telemetry.shutdown(Duration::from_secs(5)).unwrap_err();
        });
        let Some(run) = run else { return };
        let own = run.stdout.matches("\"otlp_recorder").count();
        assert_eq!(own > 0, is_logged, "{level:?}: {}", run.stdout);
        assert_eq!(run.stdout.contains("OTEL_LOG_LEVEL"), level == Some("loud"));
    }
}
