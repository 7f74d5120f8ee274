//! The configuration file of `OTEL_CONFIG_FILE`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Empty;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use otel_service::{
    Counter, Histogram, HttpClientLayer, HttpLayer, KeyValue, Span, counter, histogram, init,
};
use serde_json::Value as Json;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{self, Behaviour, Problem, value};

const DEADLINE: Duration = Duration::from_secs(10);

static PIECES: Counter = counter("scenario.pieces", "{piece}", "Pieces.");
static WAITING: Histogram = histogram("scenario.waiting", "Time spent waiting.");

fn scenario() {
    let telemetry = init(support::SERVICE).unwrap();
    support::block_on(async {
        let work = async {
            PIECES.add(2, &[KeyValue::new("scenario.item", 1)]);
            WAITING.record(Duration::from_millis(7), &[]);
            otel_service::info!("at work");
            Ok::<_, Problem>(())
        };
        Span::internal("scenario.work").run(work).await.unwrap();
    });
    telemetry.shutdown(DEADLINE).unwrap();
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/otel-configuration")
        .join(name);
    path.to_str().unwrap().to_owned()
}

/// Returns the path of a new file.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("otel-service-{}-{name}", std::process::id()));
    fs::write(&path, content).unwrap();
    path
}

fn examples_export_all_signals(test: &str, name: &str) {
    let path = example(name);
    let environment = [
        ("OTEL_CONFIG_FILE", path.as_str()),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=blue"),
        ("OTEL_SERVICE_NAME", "from-variable"),
        // Ignored, because no example refers to it.
        ("OTEL_TRACES_EXPORTER", "none"),
    ];
    let prepare = || support::collecting(Behaviour::Accepts, &environment);
    let Some((collector, stdout)) = support::run_prepared(test, prepare, scenario) else {
        return;
    };
    let received = collector.take_unchecked();
    assert_eq!(received.spans.len(), 1);
    assert!(
        received
            .metrics
            .iter()
            .any(|metric| metric.name == "scenario.pieces")
    );
    assert!(!received.logs.is_empty());
    let resource = &received.resources[0].attributes;
    assert_eq!(
        value(resource, "service.name"),
        Some("\"from-variable\"".to_owned())
    );
    assert_eq!(value(resource, "team"), Some("\"blue\"".to_owned()));
    assert!(stdout.contains("OTEL_TRACES_EXPORTER is ignored"), "{}", stdout);
    assert!(!stdout.contains("OTEL_SERVICE_NAME is ignored"), "{}", stdout);
}

#[test]
fn the_migration_example_exports_all_signals() {
    let test = "declarative::the_migration_example_exports_all_signals";
    examples_export_all_signals(test, "1.0/otel-sdk-migration-config.yaml");
}

#[test]
fn the_example_for_a_start_exports_all_signals() {
    let test = "declarative::the_example_for_a_start_exports_all_signals";
    examples_export_all_signals(test, "main/otel-getting-started.yaml");
}

#[test]
fn an_invalid_file_is_an_error_that_names_the_property() {
    let test = "declarative::an_invalid_file_is_an_error_that_names_the_property";
    let prepare = || {
        let path = file(
            "invalid.yaml",
            "file_format: '1.0'\nmeter_provider:\n  readers: s3cret\n",
        );
        let variable = ("OTEL_CONFIG_FILE".to_owned(), path.to_str().unwrap().to_owned());
        (path, vec![variable])
    };
    let run = support::run_prepared(test, prepare, || {
        for _ in 0..2 {
            let error = init(support::SERVICE).unwrap_err().to_string();
            let expected = "line 3: meter_provider.readers: must be a list, but is a string";
            assert!(
                error.contains("invalid.yaml") && error.ends_with(expected),
                "{error}"
            );
        }
    });
    if let Some((path, _)) = run {
        fs::remove_file(path).unwrap();
    }
}

const HTTP: &str = "
file_format: '1.1'
tracer_provider:
  processors: [simple: {exporter: {otlp_http: {endpoint: '${COLLECTOR}/v1/traces'}}}]
instrumentation/development:
  general:
    http:
      client:
        request_captured_headers: [X-Tenant, Authorization]
        known_methods: [BREW]
      server:
        request_captured_headers: [x-tenant]
        response_captured_headers: [Content-Language]
        known_methods: [GET]
";

#[test]
fn settings_of_http_are_those_of_each_side() {
    let test = "declarative::settings_of_http_are_those_of_each_side";
    let prepare = || {
        let (collector, mut environment) = support::collecting(Behaviour::Accepts, &[]);
        let path = file("http.yaml", HTTP);
        environment.push(("OTEL_CONFIG_FILE".to_owned(), path.to_str().unwrap().to_owned()));
        environment.push(("COLLECTOR".to_owned(), collector.url()));
        ((collector, path), environment)
    };
    let run = support::run_prepared(test, prepare, || {
        let telemetry = init(support::SERVICE).unwrap();
        for method in ["GET", "BREW"] {
            let server = HttpLayer::new(|_| Some("/route")).layer(service_fn(async |_: Request<()>| {
                let response = Response::builder().header("content-language", "de");
                response.body(Empty::<&[u8]>::new())
            }));
            let request = Request::builder().method(method).uri("http://shop.test/");
            let request = request
                .header("x-tenant", "blue")
                .header("authorization", "Basic s3cret");
            let client = HttpClientLayer::new().layer(server);
            support::block_on(client.oneshot(request.body(()).unwrap())).unwrap();
        }
        telemetry.shutdown(DEADLINE).unwrap();
    });
    let Some(((collector, path), _)) = run else { return };
    fs::remove_file(path).unwrap();
    let received = collector.take_unchecked();
    assert!(!format!("{received:?}").contains("s3cret"));
    for (name, headers) in [
        (
            "HTTP",
            &[
                "http.request.header.authorization",
                "http.request.header.x-tenant",
            ][..],
        ),
        (
            "BREW",
            &[
                "http.request.header.authorization",
                "http.request.header.x-tenant",
            ],
        ),
        (
            "GET /route",
            &[
                "http.request.header.x-tenant",
                "http.response.header.content-language",
            ],
        ),
        (
            "HTTP /route",
            &[
                "http.request.header.x-tenant",
                "http.response.header.content-language",
            ],
        ),
    ] {
        let keys = received
            .span(name)
            .attributes
            .iter()
            .map(|attribute| &*attribute.key);
        let mut captured: Vec<&str> = keys.filter(|key| key.contains(".header.")).collect();
        captured.sort_unstable();
        assert_eq!(captured, headers, "{name}");
    }
}

const VIEWS: &str = "
file_format: '1.0'
meter_provider:
  readers:
    - periodic:
        exporter:
          otlp_http:
            endpoint: ${ENDPOINT}/v1/metrics
            temporality_preference: delta
            default_histogram_aggregation: base2_exponential_bucket_histogram
        cardinality_limits: {default: 10, counter: 2}
  views:
    - selector: {instrument_name: scenario.wait*, instrument_type: histogram}
      stream:
        name: scenario.renamed
        aggregation: {explicit_bucket_histogram: {boundaries: [1, 2], record_min_max: false}}
    - selector: {meter_name: test-service, unit: '{share}'}
      stream: {attribute_keys: {included: [scenario.item]}}
    - selector: {instrument_name: process.*}
      stream: {aggregation: {drop: }}
";

#[test]
fn views_and_the_settings_of_readers_are_effective() {
    static SHARES: Counter = counter("scenario.shares", "{share}", "Shares.");
    static OTHER: Histogram = histogram("scenario.other", "Other time.");
    let test = "declarative::views_and_the_settings_of_readers_are_effective";
    let prepare = || {
        let collector = support::Collector::start(Behaviour::Accepts);
        let path = file("views.yaml", VIEWS);
        let variables = vec![
            ("OTEL_CONFIG_FILE".to_owned(), path.to_str().unwrap().to_owned()),
            ("ENDPOINT".to_owned(), collector.url()),
        ];
        ((collector, path), variables)
    };
    let run = support::run_prepared(test, prepare, || {
        let telemetry = init(support::SERVICE).unwrap();
        WAITING.record(Duration::from_millis(1_500), &[]);
        OTHER.record(Duration::from_millis(1_500), &[]);
        for item in 0..5 {
            let item = KeyValue::new("scenario.item", item);
            PIECES.add(1, std::slice::from_ref(&item));
            SHARES.add(
                1,
                &[
                    KeyValue::new("scenario.item", 1),
                    KeyValue::new("scenario.share", item.value),
                ],
            );
        }
        telemetry.shutdown(DEADLINE).unwrap();
    });
    let Some(((collector, path), _)) = run else { return };
    fs::remove_file(path).unwrap();
    let metrics = collector.take_unchecked().metrics;
    let data = |name: &str| {
        let found = metrics.iter().find(|metric| metric.name == name);
        found.unwrap_or_else(|| panic!("no {name}")).data.clone().unwrap()
    };
    let Data::Histogram(renamed) = data("scenario.renamed") else {
        panic!("{metrics:?}");
    };
    let point = &renamed.data_points[0];
    assert_eq!(
        (&point.explicit_bounds[..], &point.bucket_counts[..]),
        (&[1.0, 2.0][..], &[0, 1, 0][..])
    );
    assert_eq!((point.min, renamed.aggregation_temporality), (None, 1));
    assert!(matches!(data("scenario.other"), Data::ExponentialHistogram(_)));
    let Data::Sum(shares) = data("scenario.shares") else {
        panic!("{metrics:?}");
    };
    assert_eq!(shares.data_points.len(), 1);
    let Data::Sum(pieces) = data("scenario.pieces") else {
        panic!("{metrics:?}");
    };
    // Two sets of attributes, and the overflow.
    assert_eq!(pieces.data_points.len(), 3);
    assert!(
        metrics
            .iter()
            .all(|metric| !metric.name.starts_with("process.") && metric.name != "scenario.waiting")
    );
}

#[test]
fn requests_can_be_written_to_a_file() {
    let test = "declarative::requests_can_be_written_to_a_file";
    let prepare = || {
        let output = file("spans.jsonl", "");
        let yaml = format!(
            "file_format: '1.0'\ntracer_provider:\n  processors:\n    - simple:\n        exporter:\n          \
             otlp_file/development: {{output_stream: 'file://{}'}}\n",
            output.display()
        );
        let path = file("file.yaml", &yaml);
        let variable = ("OTEL_CONFIG_FILE".to_owned(), path.to_str().unwrap().to_owned());
        ((output, path), vec![variable])
    };
    let Some(((output, path), _)) = support::run_prepared(test, prepare, scenario) else {
        return;
    };
    let lines = fs::read_to_string(&output).unwrap();
    let request: Json = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"],
        "scenario.work"
    );
    for path in [output, path] {
        fs::remove_file(path).unwrap();
    }
}
