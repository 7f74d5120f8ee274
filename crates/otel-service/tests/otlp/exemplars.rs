//! Exemplars as the collector receives them: they refer to the span that was measured.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use otel_service::{Database, HttpLayer, Statement};
use tower::{Layer, Service};

use crate::support::{self, Behaviour, Problem, Received};

const FIND: Statement = Statement::new("SELECT", "articles", "SELECT articles", "SELECT 1");

static STEP: otel_service::Histogram = otel_service::histogram("step.duration", "Duration of a step.");

/// Histograms of the scenario, each with the span of its single measurement.
const MEASURED: [(&str, &str); 4] = [
    ("http.server.request.duration", "GET /article"),
    ("http_request_duration_seconds", "GET /article"),
    ("db.client.operation.duration", "SELECT articles"),
    ("step.duration", "GET /article"),
];

/// Histograms whose measurements equal the durations of their spans.
const TIMED: [&str; 1] = ["db.client.operation.duration"];

async fn respond(_: Request<()>) -> Result<Response<Body>, Infallible> {
    let database = Database::new("sqlite", "test".to_owned(), None);
    let found = database.observe(&FIND, async { Ok::<_, Problem>(Some(1)) });
    assert_eq!(found.await.unwrap(), Some(1));
    STEP.record(Duration::from_millis(30), &[]);
    Ok(Response::new(Body::empty()))
}

fn scenario() {
    let telemetry = support::init().unwrap();
    support::block_on(async {
        let layer = HttpLayer::new(|parts| Some(parts.uri.path())).untraced_paths(|path| path == "/health");
        let mut service = layer.layer(tower::service_fn(respond));
        let article = Request::builder().uri("/article").body(()).unwrap();
        drop(service.call(article).await.unwrap());
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

fn exemplars(received: &Received, name: &str) -> Vec<Exemplar> {
    let points = received.histogram(name);
    assert_eq!(points.len(), 1, "{name}: {points:?}");
    assert_eq!(points[0].count, 1, "{name}");
    points.into_iter().flat_map(|point| point.exemplars).collect()
}

fn refers_to(exemplar: &Exemplar, span: &Span) -> bool {
    exemplar.trace_id == span.trace_id && exemplar.span_id == span.span_id
}

#[test]
fn every_histogram_has_an_exemplar_of_the_measured_span() {
    let Some(run) = support::run(
        "exemplars::every_histogram_has_an_exemplar_of_the_measured_span",
        Behaviour::Accepts,
        &[],
        scenario,
    ) else {
        return;
    };
    let received = run.received;
    for (name, span) in MEASURED {
        let kept = exemplars(&received, name);
        assert_eq!(kept.len(), 1, "{name}");
        let span = received.span(span);
        assert!(refers_to(&kept[0], span), "{name}: {:?}, {span:?}", kept[0]);
        // The measurement may precede or follow the end of the span.
        assert!(kept[0].time_unix_nano >= span.start_time_unix_nano, "{name}");
        assert!(kept[0].filtered_attributes.is_empty(), "{name}");
        let sum = received.histogram(name)[0].sum;
        assert_eq!(
            kept[0].value,
            sum.map(Value::AsDouble),
            "{name}: the exemplar of a single measurement has the value of the sum"
        );
        if TIMED.contains(&name) {
            let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
            assert_eq!(sum, Some(took.as_secs_f64()), "{name}");
        }
    }
}

#[test]
fn the_exemplar_filter_always_off_disables_exemplars() {
    let Some(run) = support::run(
        "exemplars::the_exemplar_filter_always_off_disables_exemplars",
        Behaviour::Accepts,
        &[("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")],
        scenario,
    ) else {
        return;
    };
    for (name, _) in MEASURED {
        assert_eq!(exemplars(&run.received, name), [], "{name}");
    }
}

#[test]
fn unsampled_spans_have_exemplars_only_with_always_on() {
    let name = "exemplars::unsampled_spans_have_exemplars_only_with_always_on";
    for (filter, kept) in [("always_on", 1), ("trace_based", 0)] {
        let variables = [
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", filter),
        ];
        let Some(run) = support::run(name, Behaviour::Accepts, &variables, scenario) else {
            return;
        };
        assert!(run.received.spans.is_empty());
        for (name, _) in MEASURED {
            assert_eq!(exemplars(&run.received, name).len(), kept, "{name} {filter}");
        }
    }
}

#[test]
fn exponential_histograms_have_exemplars_too() {
    let Some(run) = support::run(
        "exemplars::exponential_histograms_have_exemplars_too",
        Behaviour::Accepts,
        &[(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "base2_exponential_bucket_histogram",
        )],
        scenario,
    ) else {
        return;
    };
    for (name, span) in MEASURED {
        let Some(Data::ExponentialHistogram(histogram)) = run.received.metric(name).data else {
            panic!("{name} is not exponential");
        };
        let kept: Vec<_> = histogram
            .data_points
            .iter()
            .flat_map(|point| &point.exemplars)
            .collect();
        assert_eq!(kept.len(), 1, "{name}");
        assert!(refers_to(kept[0], run.received.span(span)), "{name}");
    }
}
