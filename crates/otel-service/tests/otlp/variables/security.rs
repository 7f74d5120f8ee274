//! Who is trusted and who we are: `OTEL_EXPORTER_OTLP_CERTIFICATE`, `_CLIENT_KEY`, `_CLIENT_CERTIFICATE` and `_INSECURE`,
//! each common and for a signal alone.

use super::{LONG, SIGNALS, one_of_each, own, record, set};
use crate::support::{self, Behaviour, Certificates, Collector, GrpcCollector, Received, run_prepared};

/// The variables of a protocol's name and its endpoint.
fn to(protocol: &str, endpoint: String) -> Vec<(String, String)> {
    vec![
        set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    ]
}

/// The variables that name files of `certificates`, as `name` makes them from `CERTIFICATE` and the like.
fn files(certificates: &Certificates, name: impl Fn(&str) -> String) -> Vec<(String, String)> {
    [
        ("CERTIFICATE", "server.crt"),
        ("CLIENT_KEY", "client.key"),
        ("CLIENT_CERTIFICATE", "client.crt"),
    ]
    .map(|(variable, file)| set(&name(variable), certificates.path(file)))
    .to_vec()
}

fn common(variable: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{variable}")
}

/// How many of spans, metrics and logs there are any of.
fn signals(received: &Received) -> usize {
    let some = [
        !received.spans.is_empty(),
        !received.metrics.is_empty(),
        !received.logs.is_empty(),
    ];
    some.into_iter().filter(|some| *some).count()
}

/// Nothing is delivered, and that is reported.
fn record_in_vain() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    one_of_each();
    let error = telemetry.shutdown(LONG).unwrap_err();
    assert_eq!(error.signals.len(), 3);
}

#[test]
fn a_certificate_that_is_named_is_trusted_over_http() {
    let name = "variables::security::a_certificate_that_is_named_is_trusted_over_http";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(false));
        let mut environment = to("http/protobuf", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.crt")));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn a_certificate_that_is_named_is_trusted_over_grpc() {
    let name = "variables::security::a_certificate_that_is_named_is_trusted_over_grpc";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = GrpcCollector::with_tls(certificates.grpc(false));
        let mut environment = to("grpc", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.crt")));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn the_systems_certificates_are_trusted_when_none_is_named() {
    let name = "variables::security::the_systems_certificates_are_trusted_when_none_is_named";
    let prepare = || {
        let certificates = Certificates::make();
        let http = Collector::with_tls(certificates.http(false));
        let grpc = GrpcCollector::with_tls(certificates.grpc(false));
        let mut environment = to("http/protobuf", http.url());
        environment.push(set(&own("TRACES", "PROTOCOL"), "grpc"));
        environment.push(set(&own("TRACES", "ENDPOINT"), grpc.url()));
        // Where the system keeps them.
        environment.push(set("SSL_CERT_FILE", certificates.path("server.crt")));
        ((certificates, http, grpc), environment)
    };
    if let Some(((_, http, grpc), _)) = run_prepared(name, prepare, record) {
        assert_eq!((signals(&http.take()), signals(&grpc.take())), (2, 1));
    }
}

#[test]
fn a_collector_with_another_certificate_than_the_named_one_gets_nothing() {
    let name = "variables::security::a_collector_with_another_certificate_than_the_named_one_gets_nothing";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(false));
        let mut environment = to("http/protobuf", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("client.crt")));
        environment.push(set(&common("TIMEOUT"), "300"));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record_in_vain) {
        assert_eq!(collector.take().requests, 0);
    }
}

#[test]
fn a_signals_own_certificate_goes_before_the_common_one() {
    let name = "variables::security::a_signals_own_certificate_goes_before_the_common_one";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(false));
        let mut environment = to("http/protobuf", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("client.crt")));
        for (signal, _) in SIGNALS {
            environment.push(set(&own(signal, "CERTIFICATE"), certificates.path("server.crt")));
        }
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn the_clients_certificate_is_shown_over_http() {
    let name = "variables::security::the_clients_certificate_is_shown_over_http";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(true));
        let mut environment = to("http/json", collector.url());
        environment.extend(files(&certificates, common));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn the_clients_certificate_is_shown_over_grpc() {
    let name = "variables::security::the_clients_certificate_is_shown_over_grpc";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = GrpcCollector::with_tls(certificates.grpc(true));
        let mut environment = to("grpc", collector.url());
        environment.extend(files(&certificates, common));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn a_collector_that_wants_a_clients_certificate_takes_nothing_without() {
    let name = "variables::security::a_collector_that_wants_a_clients_certificate_takes_nothing_without";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = GrpcCollector::with_tls(certificates.grpc(true));
        let mut environment = to("grpc", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.crt")));
        // One goes not without the other, which is said.
        environment.push(set(&common("CLIENT_KEY"), certificates.path("client.key")));
        environment.push(set(&common("TIMEOUT"), "300"));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), stdout)) = run_prepared(name, prepare, record_in_vain) {
        assert_eq!(collector.take().requests, 0);
        assert!(
            stdout.contains("OTEL_EXPORTER_OTLP_CLIENT_KEY is left out"),
            "{stdout}"
        );
    }
}

#[test]
fn a_signals_own_client_certificate_goes_before_the_common_one() {
    let name = "variables::security::a_signals_own_client_certificate_goes_before_the_common_one";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(true));
        let mut environment = to("http/protobuf", collector.url());
        environment.push(set(&common("CLIENT_KEY"), certificates.path("server.key")));
        environment.push(set(
            &common("CLIENT_CERTIFICATE"),
            certificates.path("server.crt"),
        ));
        for (signal, _) in SIGNALS {
            environment.extend(files(&certificates, |variable| own(signal, variable)));
        }
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn files_that_cannot_be_read_are_warnings() {
    let name = "variables::security::files_that_cannot_be_read_are_warnings";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::start(Behaviour::Takes);
        let mut environment = to("http/protobuf", collector.url());
        // A key is no certificate, and this key is not that certificate's.
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.key")));
        environment.push(set(&common("CLIENT_KEY"), certificates.path("server.key")));
        environment.push(set(
            &common("CLIENT_CERTIFICATE"),
            certificates.path("client.crt"),
        ));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), stdout)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
        for variable in ["CERTIFICATE", "CLIENT_KEY"] {
            let warning = format!("OTEL_EXPORTER_OTLP_{variable}: ");
            assert_eq!(stdout.matches(&warning).count(), 1, "{variable}: {stdout}");
        }
    }
}

#[test]
fn a_bare_grpc_endpoint_is_insecure_when_the_variable_says_so() {
    let name = "variables::security::a_bare_grpc_endpoint_is_insecure_when_the_variable_says_so";
    let prepare = || {
        let collector = GrpcCollector::start();
        let mut environment = to("grpc", collector.address.to_string());
        environment.push(set(&common("INSECURE"), "true"));
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn a_bare_grpc_endpoint_is_secure_otherwise() {
    let name = "variables::security::a_bare_grpc_endpoint_is_secure_otherwise";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = GrpcCollector::with_tls(certificates.grpc(false));
        let mut environment = to("grpc", collector.address.to_string());
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.crt")));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}

#[test]
fn a_signal_may_be_insecure_alone() {
    let name = "variables::security::a_signal_may_be_insecure_alone";
    let prepare = || {
        let collector = GrpcCollector::start();
        let mut environment = to("grpc", collector.address.to_string());
        environment.push(set(&common("INSECURE"), "false"));
        for (signal, _) in SIGNALS {
            environment.push(set(&own(signal, "INSECURE"), "true"));
        }
        (collector, environment)
    };
    if let Some((collector, _)) = run_prepared(name, prepare, record) {
        assert_eq!(signals(&collector.take()), 3);
    }
}
