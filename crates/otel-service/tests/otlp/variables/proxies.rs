//! Tests of `OTEL_EXPORTER_OTLP_PROXY`, and of the proxies for the program's own calls, which exporters do not use.

use super::{record, set};
use crate::support::{Behaviour, Collector, run_prepared};

/// Returns a proxy, and the variables that make the calls of other programs use it.
fn proxy_of_others() -> (Collector, Vec<(String, String)>) {
    let proxy = Collector::start(Behaviour::Accepts);
    let variables = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ];
    let variables = variables.map(|name| set(name, proxy.url()));
    (proxy, variables.to_vec())
}

#[test]
fn telemetry_does_not_use_the_proxy_of_other_calls() {
    let name = "variables::proxies::telemetry_does_not_use_the_proxy_of_other_calls";
    let prepare = || {
        let (proxy, mut environment) = proxy_of_others();
        let collector = Collector::start(Behaviour::Accepts);
        environment.push(set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()));
        ((proxy, collector), environment)
    };
    if let Some(((proxy, collector), _)) = run_prepared(name, prepare, record) {
        let received = collector.take();
        assert!(!received.spans.is_empty() && !received.metrics.is_empty() && !received.logs.is_empty());
        assert!(!proxy.has_accepted());
    }
}

#[test]
fn telemetry_uses_its_own_proxy() {
    let name = "variables::proxies::telemetry_uses_its_own_proxy";
    let prepare = || {
        let (others, mut environment) = proxy_of_others();
        let (common, logs) = (
            Collector::start(Behaviour::Accepts),
            Collector::start(Behaviour::Accepts),
        );
        let authority = format!("me:s3cret@{}", common.address);
        environment.extend([
            set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.invalid:4318"),
            set("OTEL_EXPORTER_OTLP_PROXY", format!("http://{authority}/")),
            set("OTEL_EXPORTER_OTLP_LOGS_PROXY", logs.url()),
        ]);
        ((others, common, logs), environment)
    };
    if let Some(((others, common, logs), _)) = run_prepared(name, prepare, record) {
        let received = common.take();
        assert!(!received.spans.is_empty() && !received.metrics.is_empty() && received.logs.is_empty());
        for headers in &received.headers {
            assert!(headers[":path"].starts_with("http://collector.invalid:4318/v1/"));
            assert_eq!(headers["proxy-authorization"], "Basic bWU6czNjcmV0");
        }
        assert!(!logs.take().logs.is_empty());
        assert!(!others.has_accepted());
    }
}
