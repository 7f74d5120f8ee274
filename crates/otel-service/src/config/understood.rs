//! The `OTEL_*` variables that this crate supports. Any other that is set has no effect and causes a warning.

use std::ffi::{OsStr, OsString};

/// Read before all other variables, and not supported without the feature `config-file`.
const CONFIG_FILE: &str = "OTEL_CONFIG_FILE";

/// Names without the prefix `OTEL_`, except those in [`OTLP`].
const NAMES: [&str; 40] = [
    "ATTRIBUTE_COUNT_LIMIT",
    "ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "BLRP_EXPORT_TIMEOUT",
    "BLRP_MAX_EXPORT_BATCH_SIZE",
    "BLRP_MAX_QUEUE_SIZE",
    "BLRP_SCHEDULE_DELAY",
    "BSP_EXPORT_TIMEOUT",
    "BSP_MAX_EXPORT_BATCH_SIZE",
    "BSP_MAX_QUEUE_SIZE",
    "BSP_SCHEDULE_DELAY",
    "EVENT_ATTRIBUTE_COUNT_LIMIT",
    "EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST",
    "INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE",
    "INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
    "INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
    "INSTRUMENTATION_HTTP_EXCLUDED_URLS",
    "INSTRUMENTATION_HTTP_KNOWN_METHODS",
    "LINK_ATTRIBUTE_COUNT_LIMIT",
    "LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
    "LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "LOGS_EXPORTER",
    "LOG_LEVEL",
    "METRICS_EXEMPLAR_FILTER",
    "METRICS_EXPORTER",
    "METRIC_EXPORT_INTERVAL",
    "METRIC_EXPORT_TIMEOUT",
    "PROPAGATORS",
    "RESOURCE_ATTRIBUTES",
    "SDK_DISABLED",
    "SEMCONV_EXCEPTION_SIGNAL_OPT_IN",
    "SERVICE_NAME",
    "SPAN_ATTRIBUTE_COUNT_LIMIT",
    "SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "SPAN_EVENT_COUNT_LIMIT",
    "SPAN_LINK_COUNT_LIMIT",
    "TRACES_EXPORTER",
    "TRACES_SAMPLER",
    // Only some samplers read it.
    "TRACES_SAMPLER_ARG",
];

/// Names that follow `OTEL_EXPORTER_OTLP_`, alone or with the name of a signal.
const OTLP: [&str; 10] = [
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
    "COMPRESSION",
    "ENDPOINT",
    "HEADERS",
    "INSECURE",
    "PROTOCOL",
    "PROXY",
    "TIMEOUT",
];

/// Names with the feature `prometheus`.
const PROMETHEUS: [&str; 2] = ["EXPORTER_PROMETHEUS_HOST", "EXPORTER_PROMETHEUS_PORT"];

/// Returns the names of the variables that this crate reads, except those of Kubernetes (`K8S_*`).
///
/// For programs that look for misspelt variables in their environment.
pub fn supported_variables() -> impl Iterator<Item = String> {
    let prometheus = PROMETHEUS.iter().filter(|_| cfg!(feature = "prometheus"));
    let own = NAMES.iter().chain(prometheus).map(|name| format!("OTEL_{name}"));
    let signals = ["", "TRACES_", "METRICS_", "LOGS_"];
    let otlp = signals
        .into_iter()
        .flat_map(|signal| OTLP.map(|name| format!("OTEL_EXPORTER_OTLP_{signal}{name}")));
    let file = cfg!(feature = "config-file").then_some(CONFIG_FILE);
    let others = file.into_iter().chain(["PII_MASKING", "RUST_LOG"]);
    own.chain(otlp).chain(others.map(str::to_owned))
}

/// Returns a warning for each variable in `environment` that has no effect.
pub(super) fn warnings(environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let is_understood = |name: &str| supported_variables().any(|known| known == name && known != CONFIG_FILE);
    let warning = |(name, value): (OsString, OsString)| {
        let name = name.to_str().filter(|name| name.starts_with("OTEL_"))?;
        match value.to_str() {
            _ if !is_understood(name) && !is_blank(&value) => {
                Some(format!("{name} is not supported and has no effect"))
            }
            None => Some(format!("{name} is ignored: its value is not valid UTF-8")),
            Some(_) => None,
        }
    };
    environment.filter_map(warning).collect()
}

fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_an_effect_causes_a_warning() {
        let environment = |set: &[(&str, &str)]| {
            let pairs = set.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            warnings(pairs)
        };
        for name in [
            "OTEL_CONFIG_FILE",
            "OTEL_ENTITIES",
            "OTEL_EXPORTER_OTLP_SPAN_INSECURE",
            "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
        ] {
            let [warning] = &environment(&[(name, "s3cret")])[..] else {
                panic!("not one warning for {name}");
            };
            assert!(
                warning.starts_with(name) && !warning.contains("s3cret"),
                "{warning}"
            );
            assert_eq!(environment(&[(name, " ")]), Vec::<String>::new());
        }
        let understood = [
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a=b"),
            ("OTEL_LOG_LEVEL", "debug"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTHER", "x"),
        ];
        assert_eq!(environment(&understood), Vec::<String>::new());
    }
}
