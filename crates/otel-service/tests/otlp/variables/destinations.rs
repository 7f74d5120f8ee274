//! Destination and format of each signal: `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS` and
//! `_COMPRESSION`, in their common and per-signal forms.

use std::collections::BTreeMap;

use super::{SIGNALS, own, record, set};
use crate::support::{self, Behaviour, Collector, GrpcCollector, Received, run_prepared};

/// Whether items of each signal have arrived.
fn arrived(received: &Received) -> [bool; 3] {
    [
        received.span_names() == ["one"],
        received.metrics.iter().any(|metric| metric.name == "ones"),
        received
            .logs
            .iter()
            .any(|log| support::body_of(log) == Some("one")),
    ]
}

#[test]
fn the_common_endpoint_is_a_base_for_all_signals() {
    let name = "variables::destinations::the_common_endpoint_is_a_base_for_all_signals";
    let prepare = || {
        let collector = Collector::start(Behaviour::Accepts);
        let endpoint = format!("{}/base/", collector.url());
        (collector, vec![set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)])
    };
    if let Some((collector, _)) = run_prepared(name, prepare, record) {
        let received = collector.take();
        assert_eq!(arrived(&received), [true; 3]);
        for (_, path) in SIGNALS {
            assert_eq!(received.headers_of(path)[":path"], format!("/base{path}"));
        }
    }
}

#[test]
fn a_per_signal_endpoint_is_used_unchanged() {
    let name = "variables::destinations::a_per_signal_endpoint_is_used_unchanged";
    let prepare = || {
        let common = Collector::start(Behaviour::Accepts);
        let mut environment = vec![set("OTEL_EXPORTER_OTLP_ENDPOINT", common.url())];
        let collectors = SIGNALS.map(|(signal, path)| {
            let collector = Collector::start(Behaviour::Accepts);
            let endpoint = format!("{}/own{path}?key=1", collector.url());
            environment.push(set(&own(signal, "ENDPOINT"), endpoint));
            collector
        });
        ((common, collectors), environment)
    };
    if let Some(((common, collectors), _)) = run_prepared(name, prepare, record) {
        assert_eq!(common.take().requests, 0);
        for (index, collector) in collectors.iter().enumerate() {
            let received = collector.take();
            let expected: [bool; 3] = std::array::from_fn(|signal| signal == index);
            assert_eq!(arrived(&received), expected);
            let path = SIGNALS[index].1;
            assert_eq!(received.headers_of(path)[":path"], format!("/own{path}?key=1"));
        }
    }
}

#[test]
fn the_user_info_of_an_endpoint_becomes_basic_authentication_and_is_not_logged() {
    let name = "variables::destinations::the_user_info_of_an_endpoint_becomes_basic_authentication_and_is_not_logged";
    let prepare = || {
        let collector = Collector::start(Behaviour::Fails);
        let endpoint = format!("http://me:s3cret@{}", collector.address);
        (
            collector,
            vec![
                set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                set("OTEL_EXPORTER_OTLP_HEADERS", "x-key=t0p-s3cret"),
                set("RUST_LOG", "debug"),
            ],
        )
    };
    let scenario = || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        super::one_of_each();
        telemetry.shutdown(super::LONG).unwrap_err();
    };
    if let Some((collector, stdout)) = run_prepared(name, prepare, scenario) {
        assert!(collector.take().requests >= 3);
        assert!(stdout.contains("500"), "{stdout}");
        for secret in ["s3cret", "bWU6czNjcmV0"] {
            assert!(!stdout.contains(secret), "{stdout}");
        }
    }
}

#[test]
fn the_common_protocol_applies_to_all_signals() {
    let name = "variables::destinations::the_common_protocol_applies_to_all_signals";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
        record,
    );
    if let Some(run) = run {
        assert_eq!(arrived(&run.received), [true; 3]);
        for (_, path) in SIGNALS {
            assert_eq!(run.received.headers_of(path)["content-type"], "application/json");
        }
    }
}

#[test]
fn the_default_protocol_is_http_protobuf() {
    let name = "variables::destinations::the_default_protocol_is_http_protobuf";
    if let Some(run) = support::run(name, Behaviour::Accepts, &[], record) {
        assert_eq!(arrived(&run.received), [true; 3]);
        for (_, path) in SIGNALS {
            let headers = run.received.headers_of(path);
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert!(
                headers["user-agent"].starts_with("OTel-OTLP-Exporter-Rust/"),
                "{headers:?}"
            );
        }
    }
}

#[test]
fn all_signals_are_sent_over_grpc_if_configured() {
    let name = "variables::destinations::all_signals_are_sent_over_grpc_if_configured";
    let prepare = || {
        let collector = GrpcCollector::start();
        let environment = vec![
            set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
            set("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            set("OTEL_EXPORTER_OTLP_HEADERS", "X-Scope=a%20b"),
            set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            set("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
        ];
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, record) {
        let received = collector.take();
        assert_eq!(arrived(&received), [true; 3]);
        for (signal, path) in SIGNALS {
            let headers = received.headers_of(path);
            assert_eq!(headers["x-scope"], "a b");
            assert!(
                headers["user-agent"].starts_with("OTel-OTLP-Exporter-Rust/"),
                "{headers:?}"
            );
            let encoding = headers.get("grpc-encoding").map(String::as_str);
            assert_eq!(encoding, (signal != "LOGS").then_some("gzip"), "{signal}");
        }
    }
}

#[test]
fn a_per_signal_protocol_overrides_the_common_one() {
    let name = "variables::destinations::a_per_signal_protocol_overrides_the_common_one";
    let prepare = || {
        let (http, grpc) = (Collector::start(Behaviour::Accepts), GrpcCollector::start());
        let environment = vec![
            set("OTEL_EXPORTER_OTLP_ENDPOINT", http.url()),
            set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", grpc.url()),
            set("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
            set("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
        ];
        ((http, grpc), environment)
    };
    if let Some(((http, grpc), _)) = run_prepared(name, prepare, record) {
        assert_eq!(arrived(&grpc.take()), [true, false, false]);
        let received = http.take();
        assert_eq!(arrived(&received), [false, true, true]);
        for path in ["/v1/metrics", "/v1/logs"] {
            assert_eq!(received.headers_of(path)["content-type"], "application/json");
        }
    }
}

/// Returns the `x-…` headers of the last request of each signal.
fn own_headers(received: &Received) -> Vec<BTreeMap<String, String>> {
    let x_headers = |path| {
        let headers = received.headers_of(path).clone().into_iter();
        headers.filter(|(name, _)| name.starts_with("x-")).collect()
    };
    SIGNALS.map(|(_, path)| x_headers(path)).to_vec()
}

fn header(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn the_common_headers_are_decoded_and_sent_with_every_request() {
    let name = "variables::destinations::the_common_headers_are_decoded_and_sent_with_every_request";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=a%2Cb%3D1")],
        record,
    );
    if let Some(run) = run {
        assert_eq!(own_headers(&run.received), vec![header("x-key", "a,b=1"); 3]);
    }
}

#[test]
fn per_signal_headers_replace_the_common_ones() {
    let name = "variables::destinations::per_signal_headers_replace_the_common_ones";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-common=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-own=traces"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-own=metrics"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-own=logs"),
        ],
        record,
    );
    if let Some(run) = run {
        let expected = ["traces", "metrics", "logs"].map(|signal| header("x-own", signal));
        assert_eq!(own_headers(&run.received), expected);
    }
}

#[test]
fn a_per_signal_compression_overrides_the_common_one() {
    for (index, (signal, _)) in SIGNALS.iter().enumerate() {
        let name = "variables::destinations::a_per_signal_compression_overrides_the_common_one";
        let run = support::run(
            name,
            Behaviour::Accepts,
            &[
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
                (&own(signal, "COMPRESSION"), "gzip"),
            ],
            record,
        );
        let Some(run) = run else { return };
        assert_eq!(arrived(&run.received), [true; 3]);
        let compressed = SIGNALS.map(|(_, path)| {
            let headers = run.received.headers_of(path);
            headers
                .get("content-encoding")
                .is_some_and(|encoding| encoding == "gzip")
        });
        assert_eq!(compressed, std::array::from_fn(|signal| signal == index));
    }
}
