//! Configuration from the standard `OTEL_*` variables, `RUST_LOG` and `PII_MASKING`. No other module of this
//! crate reads environment variables, and the settings override the values that the SDK reads itself. An
//! invalid value is replaced by the default, with a warning.

mod destination;
mod endpoint;
#[cfg(feature = "config-file")]
mod file;
mod headers;
mod http;
mod limits;
mod metrics;
mod otlp;
#[cfg(any(feature = "config-file", feature = "prometheus"))]
mod patterns;
#[cfg(feature = "prometheus")]
mod prometheus;
mod settings;
mod traces;
mod understood;
mod variables;

use opentelemetry::KeyValue;
use otlp_recorder::Signal;

use crate::exceptions::ExceptionSignal;
use crate::platform;
use crate::resource::resource;
use crate::service::{Export, Service};
pub(crate) use metrics::{HistogramAggregation, View};
use metrics::{Measuring, Views};
#[cfg(all(test, feature = "prometheus"))]
pub(crate) use patterns::Patterns;
#[cfg(feature = "prometheus")]
pub(crate) use prometheus::Prometheus;
#[cfg(feature = "config-file")]
use settings::CONFIG_FILE;
pub(crate) use settings::Config;
pub use settings::ConfigFileError;
pub(crate) use traces::Propagator;
pub use understood::supported_variables;
use variables::Variables;

/// Returns the name of the variable that selects a destination or disables export, or `None` if no variable
/// does.
///
/// For programs that provide their own destination; see [`crate::Export::LocalReceiver`].
#[must_use]
pub fn destination_variable() -> Option<String> {
    destination::destination_variable(&mut Variables::new(&environment))
}

/// Reads a variable of the process.
pub(crate) fn environment(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this module reads the telemetry variables"
    )]
    std::env::var(name).ok()
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// `attributes` are added to the resource.
    ///
    /// # Errors
    ///
    /// Fails if the configuration file cannot be used.
    pub(crate) fn from_env(service: Service, attributes: Vec<KeyValue>) -> Result<Self, ConfigFileError> {
        #[cfg(feature = "config-file")]
        {
            let variables = Variables::new(&environment);
            if let Some(path) = variables.text(CONFIG_FILE) {
                return file::read(&path, service, attributes, variables, std::env::vars_os());
            }
        }
        let mut config = Self::read(service, attributes, &environment);
        config.warnings.extend(understood::warnings(std::env::vars_os()));
        Ok(config)
    }

    fn read(service: Service, attributes: Vec<KeyValue>, lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut variables = Variables::new(lookup);
        let mut destination = |signal| destination::destination(signal, service.export, &mut variables);
        let (traces, metrics, logs) = (
            destination(Signal::Traces),
            destination(Signal::Metrics),
            destination(Signal::Logs),
        );
        // In milliseconds: the defaults of the specification for a collector, shorter times for a local
        // receiver.
        let (span_delay, log_delay, metric_interval) = match service.export {
            Export::LocalReceiver(_) => (500, 500, 5_000),
            Export::Always | Export::WhenConfigured | Export::Never => (5_000, 1_000, 60_000),
        };
        #[cfg(feature = "prometheus")]
        let prometheus = prometheus::prometheus(service.export, &mut variables);
        let measuring = Measuring::read(metric_interval, metrics.as_ref(), &mut variables);
        Self {
            disabled: variables.is_true("OTEL_SDK_DISABLED"),
            resource: resource(
                service,
                platform::kubernetes(lookup),
                attributes,
                variables.text("OTEL_SERVICE_NAME"),
                variables.text("OTEL_RESOURCE_ATTRIBUTES").as_deref(),
                &mut variables.warnings,
            ),
            sampler: traces::sampler(&mut variables),
            custom_sampler: None,
            propagators: traces::propagators(&mut variables),
            traces,
            metrics,
            #[cfg(feature = "prometheus")]
            prometheus,
            logs,
            span_batches: limits::batches("OTEL_BSP", span_delay, &mut variables),
            log_batches: limits::batches("OTEL_BLRP", log_delay, &mut variables),
            measuring,
            views: Views::default(),
            log_directives: variables
                .text("RUST_LOG")
                .unwrap_or_else(|| service.log_levels.to_owned()),
            masking: variables.is_on("PII_MASKING", true),
            span_limits: limits::span_limits(&mut variables),
            span_value_limit: limits::value_length("SPAN", &mut variables),
            log_attribute_limit: limits::log_attributes(&mut variables),
            log_value_limit: limits::value_length("LOGRECORD", &mut variables),
            http: http::settings(&mut variables),
            exceptions: exceptions(&mut variables),
            own_level: own_level(&mut variables),
            warnings: variables.warnings,
        }
    }
}

/// Reads the signal of exceptions, as span events by default.
fn exceptions(variables: &mut Variables<'_>) -> ExceptionSignal {
    let choices = [
        ("", ExceptionSignal::Spans),
        ("logs", ExceptionSignal::Logs),
        ("logs/dup", ExceptionSignal::Both),
    ];
    let invalid = "neither logs nor logs/dup; exceptions are span events";
    variables.choice("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", &choices, invalid)
}

/// Reads the level of the events about the export itself; without the variable, that of all events applies.
fn own_level(variables: &mut Variables<'_>) -> Option<&'static str> {
    let levels = ["none", "error", "warn", "info", "debug", "trace"];
    let choices = levels.map(|level| (level, Some(if level == "none" { "off" } else { level })));
    variables.text("OTEL_LOG_LEVEL")?;
    let choices = [[("info", Some("info"))].as_slice(), &choices].concat();
    variables.choice("OTEL_LOG_LEVEL", &choices, "not a known level; info is used")
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::Sampler;
    use otlp_recorder::{BatchSettings, Destination};

    use super::*;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::time::Duration;

    use otlp_recorder::{Collector, Protocol};

    use crate::b3::Encoding;

    const SERVICE: Service = Service::new("app", "1");

    fn read(variables: &[(&str, &str)]) -> Config {
        Config::read(SERVICE, Vec::new(), &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn otlp(destination: Option<Destination>) -> Collector {
        match destination {
            Some(Destination::Collector(collector)) => *collector,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_default_is_otlp_to_the_local_collector() {
        let config = read(&[]);
        for (destination, endpoint) in [
            (config.traces, "http://localhost:4318/v1/traces"),
            (config.metrics, "http://localhost:4318/v1/metrics"),
            (config.logs, "http://localhost:4318/v1/logs"),
        ] {
            assert_eq!(otlp(destination).endpoint, endpoint);
        }
        assert_eq!(
            config.span_batches,
            BatchSettings {
                queue_size: 2048,
                batch_size: 512,
                delay: Duration::from_secs(5),
                timeout: Duration::from_secs(30),
            }
        );
        assert_eq!(
            config.propagators,
            [Propagator::TraceContext, Propagator::Baggage]
        );
        assert!(!config.disabled && config.masking);
        assert_eq!(config.log_directives, "info");
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_variable_of_a_signal_overrides_the_common_variable() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/in"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "500"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ]);
        let traces = otlp(config.traces);
        assert_eq!(traces.endpoint, "https://traces/in");
        assert_eq!(traces.timeout, Duration::from_secs(2));
        let logs = otlp(config.logs);
        assert_eq!(logs.endpoint, "http://all:4318/base/v1/logs");
        assert_eq!(logs.timeout, Duration::from_millis(500));
        assert!(config.metrics.is_none());
    }

    #[test]
    fn an_invalid_value_causes_a_warning_and_the_default_is_used() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_PROPAGATORS", "tracecontext,b3multi,jaeger"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1"),
            ("PII_MASKING", "perhaps"),
            ("OTEL_LOGS_EXPORTER", "kafka"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,novalue"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "18446744073709551615"),
            ("OTEL_BSP_SCHEDULE_DELAY", "often"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://collector:99999"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "few"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "carrier-pigeon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "key.pem"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "perhaps"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROXY", "proxy.example:3128"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "eternal"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "heap"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "some"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "-1"),
            ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "few"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "B REW"),
            ("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x y"),
            ("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", "ä"),
            ("OTEL_INSTRUMENTATION_HTTP_EXCLUDED_URLS", "http://a/b"),
            ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "events"),
        ]);
        assert_eq!(otlp(config.traces).endpoint, "http://localhost:4318/v1/traces");
        assert_eq!(otlp(config.logs).timeout, Duration::from_secs(10));
        assert_eq!(config.measuring.interval, Duration::from_secs(60));
        assert_eq!(config.log_batches.queue_size, 2048);
        assert_eq!(config.span_batches.delay, Duration::from_secs(5));
        assert_eq!(
            config.propagators,
            [Propagator::TraceContext, Propagator::B3(Encoding::Multiple)]
        );
        assert!(matches!(config.sampler, Sampler::ParentBased(_)));
        assert!(!config.disabled && config.masking);
        for name in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
            "OTEL_TRACES_SAMPLER",
            "OTEL_SDK_DISABLED",
            "OTEL_PROPAGATORS",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "PII_MASKING",
            "OTEL_LOGS_EXPORTER",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            "OTEL_BSP_SCHEDULE_DELAY",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_TRACES_SAMPLER_ARG",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            "OTEL_SPAN_EVENT_COUNT_LIMIT",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
            "OTEL_EXPORTER_OTLP_INSECURE",
            "OTEL_EXPORTER_OTLP_METRICS_PROXY",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "OTEL_METRICS_EXEMPLAR_FILTER",
            "OTEL_METRIC_EXPORT_TIMEOUT",
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE",
            "OTEL_INSTRUMENTATION_HTTP_EXCLUDED_URLS",
            "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN",
        ] {
            assert!(
                config.warnings.iter().any(|warning| warning.contains(name)),
                "no warning for {name}: {:?}",
                config.warnings
            );
        }
    }

    #[test]
    fn the_sample_environment_file_has_every_variable_with_a_valid_value() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let Ok(sample) = std::fs::read_to_string(workspace.join(".env.example")) else {
            // The published package does not contain the file, but the workspace must.
            assert!(!workspace.join("clippy.toml").exists(), ".env.example is missing");
            return;
        };
        let sample: BTreeMap<_, _> = sample
            .lines()
            .filter_map(|line| line.trim_start_matches('#').split_once('='))
            .collect();
        let queried = RefCell::new(BTreeSet::new());
        let config = Config::read(SERVICE, Vec::new(), &|name| {
            queried.borrow_mut().insert(name.to_owned());
            // This sampler also reads OTEL_TRACES_SAMPLER_ARG.
            if name == "OTEL_TRACES_SAMPLER" {
                return Some("traceidratio".to_owned());
            }
            sample.get(name).map(|value| (*value).to_owned())
        });
        assert_eq!(config.warnings, Vec::<String>::new());
        let mut queried = queried.into_inner();
        // The file describes the variables of a single signal in prose.
        queried.retain(|name| {
            let rest = name.strip_prefix("OTEL_EXPORTER_OTLP_").unwrap_or_default();
            let signal = ["TRACES_", "METRICS_", "LOGS_"]
                .into_iter()
                .find_map(|signal| rest.strip_prefix(signal));
            signal.is_none_or(|rest| !sample.contains_key(&*format!("OTEL_EXPORTER_OTLP_{rest}")))
        });
        assert!(queried.len() > 35, "{queried:?}");
        for name in queried {
            assert!(sample.contains_key(&*name), "{name} is not in .env.example");
        }
    }

    #[test]
    fn propagators_that_are_all_unknown_are_the_default() {
        for list in ["jaeger", "xray,ottrace", ","] {
            let config = read(&[("OTEL_PROPAGATORS", list)]);
            assert_eq!(
                config.propagators,
                [Propagator::TraceContext, Propagator::Baggage],
                "{list}"
            );
            assert!(!config.warnings.is_empty());
        }
        assert_eq!(read(&[("OTEL_PROPAGATORS", "jaeger,none")]).propagators, []);
    }

    #[test]
    fn a_warning_about_a_keyword_contains_the_value() {
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_PROPAGATORS", "jaeger"),
            #[cfg(not(feature = "prometheus"))]
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_METRICS_EXPORTER", "zipkin"),
            ("OTEL_LOGS_EXPORTER", "otlp/stdout"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
            ("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs,logs/dup"),
        ] {
            let warnings = read(&[(name, value)]).warnings;
            let says = |warning: &String| warning.starts_with(name) && warning.contains(value);
            assert!(warnings.iter().any(says), "{warnings:?}");
        }
    }

    #[test]
    fn only_warnings_about_keywords_contain_a_value() {
        let config = Config::read(SERVICE, Vec::new(), &|name| {
            (name != "OTEL_SDK_DISABLED").then(|| "s3cret".to_owned())
        });
        assert!(config.warnings.len() > 20, "{:?}", config.warnings);
        let keywords = [
            "SAMPLER",
            "PROPAGATORS",
            "EXPORTER",
            "PROTOCOL",
            "COMPRESSION",
            "FILTER",
            "LOG_LEVEL",
        ];
        let keywords = keywords.iter().chain(&["PREFERENCE", "AGGREGATION", "OPT_IN"]);
        for warning in &config.warnings {
            let (name, _) = warning.split_once(' ').unwrap();
            let is_keyword = keywords.clone().any(|end| name.ends_with(end));
            assert!(is_keyword || !warning.contains("s3cret"), "{warning}");
        }
    }

    #[test]
    fn the_debug_output_contains_no_secret() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:s3cret@collector"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret"),
        ]);
        let shown = format!("{config:?}");
        assert!(shown.contains("http://collector/v1/traces"), "{shown}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("bWU6czNjcmV0"),
            "{shown}"
        );
    }

    #[test]
    fn a_timeout_of_zero_means_no_timeout() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "0"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ]);
        let hour = Duration::from_secs(3_600);
        assert_eq!(otlp(config.logs).timeout, hour);
        assert_eq!(config.span_batches.timeout, hour);
        assert_eq!(config.measuring.timeout, hour);
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn export_when_configured_needs_an_endpoint_or_an_exporter() {
        let service = Service {
            export: Export::WhenConfigured,
            ..SERVICE
        };
        let traces = |variable: &'static str, value: &'static str| {
            Config::read(service, Vec::new(), &|name| {
                (name == variable).then(|| value.to_owned())
            })
            .traces
        };
        assert!(traces("", "").is_none());
        let console = traces("OTEL_TRACES_EXPORTER", "console");
        assert!(matches!(console, Some(Destination::Custom(_))), "{console:?}");
        for (variable, value) in [
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://collector:4318/v1/traces",
            ),
        ] {
            assert!(
                matches!(traces(variable, value), Some(Destination::Collector(_))),
                "{variable}"
            );
        }
    }

    /// Reads the configuration of a service whose receiver listens on port 9.
    fn read_local(set: &[(&str, &str)]) -> Config {
        let service = Service {
            export: Export::LocalReceiver(([127, 0, 0, 1], 9).into()),
            ..SERVICE
        };
        Config::read(service, Vec::new(), &|name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_local_receiver_gets_all_signals_at_short_intervals() {
        let config = read_local(&[]);
        for (destination, path) in [
            (config.traces, "traces"),
            (config.metrics, "metrics"),
            (config.logs, "logs"),
        ] {
            assert_eq!(
                otlp(destination).endpoint,
                format!("http://127.0.0.1:9/v1/{path}")
            );
        }
        assert_eq!(config.span_batches.delay, Duration::from_millis(500));
        assert_eq!(config.log_batches.delay, Duration::from_millis(500));
        assert_eq!(config.measuring.interval, Duration::from_secs(5));
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn variables_override_a_local_receiver() {
        let config = read_local(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/in"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_BSP_SCHEDULE_DELAY", "4000"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "30000"),
        ]);
        assert_eq!(otlp(config.traces).endpoint, "https://traces/in");
        assert!(config.metrics.is_none());
        assert_eq!(otlp(config.logs).endpoint, "http://127.0.0.1:9/v1/logs");
        assert_eq!(config.span_batches.delay, Duration::from_secs(4));
        assert_eq!(config.measuring.interval, Duration::from_secs(30));
    }

    #[test]
    fn settings_of_a_collector_do_not_apply_to_a_local_receiver() {
        let config = read_local(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ]);
        let traces = otlp(config.traces);
        assert_eq!(traces.protocol, Protocol::HttpProtobuf);
        assert_eq!(traces.endpoint, "http://127.0.0.1:9/v1/traces");
        assert!(traces.headers.is_empty() && traces.certificate.is_none());
        assert_eq!(traces.timeout, Duration::from_secs(2));
    }

    #[test]
    fn no_variable_overrides_export_never() {
        let service = Service {
            export: Export::Never,
            ..SERVICE
        };
        let config = Config::read(service, Vec::new(), &|name| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://localhost:4318".to_owned()),
            "OTEL_TRACES_EXPORTER" => Some("otlp".to_owned()),
            "OTEL_METRICS_EXPORTER" => Some("console".to_owned()),
            _ => None,
        });
        for destination in [config.traces, config.metrics, config.logs] {
            assert!(destination.is_none(), "{destination:?}");
        }
    }

    #[test]
    fn only_true_disables_the_sdk_and_off_disables_masking() {
        for (value, disabled) in [("TRUE", true), ("1", false), ("false", false)] {
            assert_eq!(read(&[("OTEL_SDK_DISABLED", value)]).disabled, disabled);
        }
        for (value, masking) in [("OFF", false), ("0", false), ("on", true)] {
            assert_eq!(read(&[("PII_MASKING", value)]).masking, masking);
        }
    }

    #[test]
    fn a_sampler_uses_the_configured_ratio() {
        let ratio = |argument| {
            let config = read(&[
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]);
            match config.sampler {
                Sampler::TraceIdRatioBased(ratio) => (ratio, config.warnings.len()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ratio("0.25"), (0.25, 0));
        assert_eq!(ratio("2"), (1.0, 1));
        assert_eq!(ratio("NaN"), (1.0, 1));
    }
}
