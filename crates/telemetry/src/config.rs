//! Reads the standard `OTEL_*` variables, `RUST_LOG` and `PII_MASKING`, once. A value that cannot be read becomes a
//! warning and the default. `OTEL_BSP_*`, `OTEL_BLRP_*`, `OTEL_METRIC_EXPORT_INTERVAL`, the span limits and
//! `OTEL_EXPORTER_OTLP_*HEADERS` are read by the SDK and its exporter themselves.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::Sampler;

use crate::b3::Encoding;
use crate::resource::resource;

const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The service that sends the telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The default of `OTEL_SERVICE_NAME`.
    pub name: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

/// Everything [`crate::init`] needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    /// `OTEL_SDK_DISABLED`.
    pub(crate) disabled: bool,
    pub(crate) resource: Resource,
    pub(crate) sampler: Sampler,
    pub(crate) propagators: Vec<Propagator>,
    /// Where each signal goes; `None` when its exporter is `none`.
    pub(crate) traces: Option<Otlp>,
    pub(crate) metrics: Option<Otlp>,
    pub(crate) logs: Option<Otlp>,
    /// `RUST_LOG`, not yet parsed.
    pub(crate) log_directives: String,
    /// Whether e-mails are masked.
    pub(crate) masking: bool,
    /// The longest attribute value in characters.
    pub(crate) span_value_limit: Option<usize>,
    pub(crate) log_value_limit: Option<usize>,
    /// What could not be read.
    pub(crate) warnings: Vec<String>,
}

/// An OTLP destination of one signal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Otlp {
    /// The whole URL with the signal's path.
    pub(crate) endpoint: String,
    /// Of one export with its retries.
    pub(crate) timeout: Duration,
    /// The file of `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub(crate) certificate: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Propagator {
    TraceContext,
    Baggage,
    B3(Encoding),
}

/// Reads one variable; empty counts as unset.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the process's environment.
    pub(crate) fn from_env(service: Service) -> Self {
        Self::read(service, &|name| {
            #[expect(
                clippy::disallowed_methods,
                reason = "this module is where the telemetry variables are read"
            )]
            let value = std::env::var(name).ok()?;
            Some(value)
        })
    }

    fn read(service: Service, variables: Lookup<'_>) -> Self {
        let lookup: Lookup<'_> = &|name| variables(name).filter(|value| !value.trim().is_empty());
        let mut warnings = Vec::new();
        let value_limit = number(lookup, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", &mut warnings);
        Self {
            disabled: boolean(lookup, "OTEL_SDK_DISABLED", &mut warnings),
            resource: resource(
                service,
                lookup("OTEL_SERVICE_NAME"),
                lookup("OTEL_RESOURCE_ATTRIBUTES").as_deref(),
                &mut warnings,
            ),
            sampler: sampler(lookup, &mut warnings),
            propagators: propagators(lookup, &mut warnings),
            traces: destination(lookup, "TRACES", "/v1/traces", &mut warnings),
            metrics: destination(lookup, "METRICS", "/v1/metrics", &mut warnings),
            logs: destination(lookup, "LOGS", "/v1/logs", &mut warnings),
            log_directives: lookup("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
            masking: masking(lookup, &mut warnings),
            span_value_limit: number(lookup, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", &mut warnings)
                .or(value_limit),
            log_value_limit: number(
                lookup,
                "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
                &mut warnings,
            )
            .or(value_limit),
            warnings,
        }
    }
}

fn boolean(lookup: Lookup<'_>, name: &str, warnings: &mut Vec<String>) -> bool {
    let value = lookup(name).unwrap_or_default().to_ascii_lowercase();
    match value.trim() {
        "true" => true,
        "" | "false" => false,
        _ => {
            warnings.push(format!("{name} is neither true nor false; false is used"));
            false
        }
    }
}

fn number(lookup: Lookup<'_>, name: &str, warnings: &mut Vec<String>) -> Option<usize> {
    let value = lookup(name)?;
    let parsed = value.trim().parse().ok();
    if parsed.is_none() {
        warnings.push(format!("{name} is not a whole number; no limit is used"));
    }
    parsed
}

fn masking(lookup: Lookup<'_>, warnings: &mut Vec<String>) -> bool {
    let value = lookup("PII_MASKING").unwrap_or_default().to_ascii_lowercase();
    match value.trim() {
        "off" | "false" | "0" | "no" => false,
        "" | "on" | "true" | "1" | "yes" => true,
        _ => {
            warnings.push("PII_MASKING is neither on nor off; on is used".to_owned());
            true
        }
    }
}

fn sampler(lookup: Lookup<'_>, warnings: &mut Vec<String>) -> Sampler {
    let name = lookup("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let mut ratio = || {
        let argument = lookup("OTEL_TRACES_SAMPLER_ARG");
        let parsed = argument
            .as_deref()
            .map_or(Some(1.0), |text| text.trim().parse::<f64>().ok())
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        parsed.unwrap_or_else(|| {
            warnings.push("OTEL_TRACES_SAMPLER_ARG is not between 0 and 1; 1 is used".to_owned());
            1.0
        })
    };
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    match name.trim() {
        "" | "parentbased_always_on" => parent_based(Sampler::AlwaysOn),
        "parentbased_always_off" => parent_based(Sampler::AlwaysOff),
        "parentbased_traceidratio" => parent_based(Sampler::TraceIdRatioBased(ratio())),
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio()),
        other => {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER={other} is not known; parentbased_always_on is used"
            ));
            parent_based(Sampler::AlwaysOn)
        }
    }
}

fn propagators(lookup: Lookup<'_>, warnings: &mut Vec<String>) -> Vec<Propagator> {
    let list = lookup("OTEL_PROPAGATORS").unwrap_or_else(|| "tracecontext,baggage".to_owned());
    let mut propagators = Vec::new();
    let mut add = |propagator| {
        if !propagators.contains(&propagator) {
            propagators.push(propagator);
        }
    };
    for name in list.split(',').map(str::trim) {
        match name {
            "tracecontext" => add(Propagator::TraceContext),
            "baggage" => add(Propagator::Baggage),
            "b3" => add(Propagator::B3(Encoding::Single)),
            "b3multi" => add(Propagator::B3(Encoding::Multiple)),
            "none" => return Vec::new(),
            "" => {}
            other => warnings.push(format!("OTEL_PROPAGATORS: {other} is not supported and left out")),
        }
    }
    propagators
}

/// Where the signal goes: `OTEL_<SIGNAL>_EXPORTER` and the `OTEL_EXPORTER_OTLP_*` of the signal, else of all.
fn destination(lookup: Lookup<'_>, signal: &str, path: &str, warnings: &mut Vec<String>) -> Option<Otlp> {
    let exporter = format!("OTEL_{signal}_EXPORTER");
    match lookup(&exporter).as_deref().map(str::trim) {
        None | Some("otlp") => {}
        Some("none") => return None,
        Some(other) => warnings.push(format!("{exporter}={other} is not supported; otlp is used")),
    }
    let either = |name: &str| {
        [
            format!("OTEL_EXPORTER_OTLP_{signal}_{name}"),
            format!("OTEL_EXPORTER_OTLP_{name}"),
        ]
        .into_iter()
        .find_map(|variable| lookup(&variable).map(|value| (variable, value)))
    };
    if let Some((variable, protocol)) = either("PROTOCOL")
        && protocol.trim() != "http/protobuf"
    {
        warnings.push(format!(
            "{variable}={protocol} is not supported; http/protobuf is used"
        ));
    }
    // The exporter compresses by itself, and leaves out what it does not know without a word.
    if let Some((variable, compression)) = either("COMPRESSION")
        && !matches!(compression.trim(), "gzip" | "none")
    {
        warnings.push(format!(
            "{variable}={compression} is not supported; nothing is compressed"
        ));
    }
    Some(Otlp {
        endpoint: endpoint(lookup, signal, path, warnings),
        timeout: either("TIMEOUT").map_or(DEFAULT_TIMEOUT, |(variable, value)| {
            value.trim().parse().map_or_else(
                |_| {
                    warnings.push(format!(
                        "{variable} is not a number of milliseconds; 10000 is used"
                    ));
                    DEFAULT_TIMEOUT
                },
                Duration::from_millis,
            )
        }),
        certificate: either("CERTIFICATE").map(|(_, path)| path),
    })
}

/// The signal's own endpoint as it is, or the common one with the signal's path behind it.
fn endpoint(lookup: Lookup<'_>, signal: &str, path: &str, warnings: &mut Vec<String>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    if let Some(url) = lookup(&own) {
        if is_http_url(url.trim()) {
            return url.trim().to_owned();
        }
        warnings.push(format!("{own} is not an http(s) URL and is left out"));
    }
    let common = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let base = lookup(common).map_or_else(
        || DEFAULT_ENDPOINT.to_owned(),
        |url| {
            if is_http_url(url.trim()) {
                return url.trim().to_owned();
            }
            warnings.push(format!(
                "{common} is not an http(s) URL; {DEFAULT_ENDPOINT} is used"
            ));
            DEFAULT_ENDPOINT.to_owned()
        },
    );
    format!("{}{path}", base.trim_end_matches('/'))
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Service = Service {
        name: "app",
        version: "1",
    };

    fn read(variables: &[(&str, &str)]) -> Config {
        Config::read(SERVICE, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_means_otlp_to_the_local_collector() {
        let config = read(&[]);
        let endpoints = [&config.traces, &config.metrics, &config.logs]
            .map(|signal| signal.as_ref().map(|otlp| otlp.endpoint.as_str()));
        assert_eq!(
            endpoints,
            [
                Some("http://localhost:4318/v1/traces"),
                Some("http://localhost:4318/v1/metrics"),
                Some("http://localhost:4318/v1/logs"),
            ]
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
    fn a_signal_goes_before_the_common_value() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/in"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "500"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ]);
        let traces = config.traces.unwrap();
        assert_eq!(traces.endpoint, "https://traces/in");
        assert_eq!(traces.timeout, Duration::from_secs(2));
        let logs = config.logs.unwrap();
        assert_eq!(logs.endpoint, "http://all:4318/base/v1/logs");
        assert_eq!(logs.timeout, Duration::from_millis(500));
        assert_eq!(config.metrics, None);
    }

    #[test]
    fn what_cannot_be_read_is_a_warning_and_the_default() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_PROPAGATORS", "tracecontext,b3multi,jaeger"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1"),
            ("PII_MASKING", "perhaps"),
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ]);
        assert_eq!(config.traces.unwrap().endpoint, "http://localhost:4318/v1/traces");
        assert_eq!(config.logs.unwrap().timeout, DEFAULT_TIMEOUT);
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
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ] {
            assert!(
                config.warnings.iter().any(|warning| warning.contains(name)),
                "no warning for {name}: {:?}",
                config.warnings
            );
        }
    }

    #[test]
    fn samplers_take_their_ratio() {
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
