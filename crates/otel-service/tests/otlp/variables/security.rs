//! Tests of TLS: `OTEL_EXPORTER_OTLP_CERTIFICATE`, `_CLIENT_KEY`, `_CLIENT_CERTIFICATE` and `_INSECURE`, in
//! their common and per-signal forms.

use super::{LONG, SIGNALS, one_of_each, own, record, set};
use crate::support::{self, Behaviour, Certificates, Collector, GrpcCollector, Received, run_prepared};

/// Returns the variables for a protocol and an endpoint.
fn to(protocol: &str, endpoint: String) -> Vec<(String, String)> {
    vec![
        set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    ]
}

/// Returns the variables that refer to files of `certificates`; `name` maps `CERTIFICATE` etc. to the full
/// name.
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

/// Returns the number of signals received.
fn signals(received: &Received) -> usize {
    let some = [
        !received.spans.is_empty(),
        !received.metrics.is_empty(),
        !received.logs.is_empty(),
    ];
    some.into_iter().filter(|some| *some).count()
}

/// Records one item of each signal and expects that none is delivered.
fn record_undelivered() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    one_of_each();
    let error = telemetry.shutdown(LONG).unwrap_err();
    assert_eq!(error.signals.len(), 3);
}

#[test]
fn a_configured_certificate_is_trusted_over_http() {
    let name = "variables::security::a_configured_certificate_is_trusted_over_http";
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
fn a_configured_certificate_is_trusted_over_grpc() {
    let name = "variables::security::a_configured_certificate_is_trusted_over_grpc";
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
fn the_system_certificates_are_trusted_by_default() {
    let name = "variables::security::the_system_certificates_are_trusted_by_default";
    let prepare = || {
        let certificates = Certificates::make();
        let http = Collector::with_tls(certificates.http(false));
        let grpc = GrpcCollector::with_tls(certificates.grpc(false));
        let mut environment = to("http/protobuf", http.url());
        environment.push(set(&own("TRACES", "PROTOCOL"), "grpc"));
        environment.push(set(&own("TRACES", "ENDPOINT"), grpc.url()));
        // Replaces the certificate store of the system.
        environment.push(set("SSL_CERT_FILE", certificates.path("server.crt")));
        ((certificates, http, grpc), environment)
    };
    if let Some(((_, http, grpc), _)) = run_prepared(name, prepare, record) {
        assert_eq!((signals(&http.take()), signals(&grpc.take())), (2, 1));
    }
}

#[test]
fn a_collector_with_an_untrusted_certificate_receives_nothing() {
    let name = "variables::security::a_collector_with_an_untrusted_certificate_receives_nothing";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::with_tls(certificates.http(false));
        let mut environment = to("http/protobuf", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("client.crt")));
        environment.push(set(&common("TIMEOUT"), "300"));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), _)) = run_prepared(name, prepare, record_undelivered) {
        assert_eq!(collector.take().requests, 0);
    }
}

#[test]
fn a_per_signal_certificate_overrides_the_common_one() {
    let name = "variables::security::a_per_signal_certificate_overrides_the_common_one";
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
fn the_client_certificate_is_presented_over_http() {
    let name = "variables::security::the_client_certificate_is_presented_over_http";
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
fn the_client_certificate_is_presented_over_grpc() {
    let name = "variables::security::the_client_certificate_is_presented_over_grpc";
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
fn a_collector_that_requires_a_client_certificate_receives_nothing_without_one() {
    let name =
        "variables::security::a_collector_that_requires_a_client_certificate_receives_nothing_without_one";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = GrpcCollector::with_tls(certificates.grpc(true));
        let mut environment = to("grpc", collector.url());
        environment.push(set(&common("CERTIFICATE"), certificates.path("server.crt")));
        // A key without a certificate is ignored with a warning.
        environment.push(set(&common("CLIENT_KEY"), certificates.path("client.key")));
        environment.push(set(&common("TIMEOUT"), "300"));
        ((certificates, collector), environment)
    };
    if let Some(((_, collector), stdout)) = run_prepared(name, prepare, record_undelivered) {
        assert_eq!(collector.take().requests, 0);
        assert!(
            stdout.contains("OTEL_EXPORTER_OTLP_CLIENT_KEY is ignored"),
            "{stdout}"
        );
    }
}

#[test]
fn a_per_signal_client_certificate_overrides_the_common_one() {
    let name = "variables::security::a_per_signal_client_certificate_overrides_the_common_one";
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
fn invalid_files_cause_warnings() {
    let name = "variables::security::invalid_files_cause_warnings";
    let prepare = || {
        let certificates = Certificates::make();
        let collector = Collector::start(Behaviour::Accepts);
        let mut environment = to("http/protobuf", collector.url());
        // The certificate file contains a key, and the client key does not match the client certificate.
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
fn a_grpc_endpoint_without_a_scheme_is_insecure_if_configured() {
    let name = "variables::security::a_grpc_endpoint_without_a_scheme_is_insecure_if_configured";
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
fn a_grpc_endpoint_without_a_scheme_is_secure_by_default() {
    let name = "variables::security::a_grpc_endpoint_without_a_scheme_is_secure_by_default";
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
fn a_single_signal_can_be_insecure() {
    let name = "variables::security::a_single_signal_can_be_insecure";
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

/// Runs the set-up with `environment` and expects that the program can still install its own TLS provider.
fn expect_own_provider(test: &str, environment: &[(&str, &str)]) {
    let prepare = || {
        let variables = environment.iter().map(|(name, value)| set(name, *value));
        ((), variables.collect())
    };
    run_prepared(test, prepare, || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        one_of_each();
        let _ = telemetry.shutdown(std::time::Duration::from_millis(200));
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
}

#[test]
fn an_http_exporter_installs_no_tls_provider() {
    let name = "variables::security::an_http_exporter_installs_no_tls_provider";
    expect_own_provider(name, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")]);
}

#[test]
fn a_grpc_exporter_installs_no_tls_provider() {
    let name = "variables::security::a_grpc_exporter_installs_no_tls_provider";
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    expect_own_provider(name, &environment);
}

#[test]
fn disabled_telemetry_installs_no_tls_provider() {
    let name = "variables::security::disabled_telemetry_installs_no_tls_provider";
    expect_own_provider(name, &[("OTEL_SDK_DISABLED", "true")]);
}
