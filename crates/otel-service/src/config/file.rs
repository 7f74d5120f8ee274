//! Declarative configuration: the file of `OTEL_CONFIG_FILE`, in the stable schema of
//! <https://github.com/open-telemetry/opentelemetry-configuration> (`file_format` 1.0 and 1.1). Every property is
//! effective or refused with its path. While there is a file, no other `OTEL_*` variable has an effect, except through
//! substitution.

mod exporters;
mod metrics;
mod reader;
mod resource;
mod sampler;
mod substitution;
mod yaml;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::{Sampler, SpanLimits};
use otlp_recorder::{BatchSettings, Destination, LOG_TARGET, Signal};

use super::http;
use super::settings::{CONFIG_FILE, Config, ConfigFileError};
use super::traces::{Propagator, propagator};
use super::variables::Variables;
use crate::exceptions::ExceptionSignal;
use crate::http_settings::{HttpSettings, SideSettings};
use crate::service::{Export, Service};
use metrics::{Metrics, metrics};
use reader::{Problems, Section, Value};
use sampler::{Chosen, sampler};

/// Maximum size of the file in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Version of the schema up to which no warning is logged.
const MINOR_VERSION: u32 = 1;

/// Reads the file at `path`. `environment` names the variables that are set, for warnings.
pub(super) fn read(
    path: &str,
    service: Service,
    attributes: Vec<KeyValue>,
    variables: Variables<'_>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigFileError> {
    let fail = |mut problems: Vec<(usize, String)>| {
        problems.sort();
        let problems = problems
            .into_iter()
            .map(|(line, problem)| format!("line {line}: {problem}"));
        ConfigFileError {
            file: path.to_owned(),
            problems: problems.collect(),
        }
    };
    let text = content(path).map_err(|error| ConfigFileError {
        file: path.to_owned(),
        problems: vec![format!("the file cannot be read: {error}")],
    })?;
    let mut names = BTreeSet::new();
    let root =
        yaml::parse(&text, &|name| variables.raw(name), &mut names).map_err(|problem| fail(vec![problem]))?;
    let problems = Problems::default();
    let mut config = configuration(
        Value::root(&root, &problems).section(),
        service,
        attributes,
        variables,
        &mut names,
    );
    let problems = problems.into_inner();
    if !problems.is_empty() {
        return Err(fail(problems));
    }
    for (name, value) in environment {
        let (name, is_set) = (name.to_string_lossy(), !value.to_string_lossy().trim().is_empty());
        if name.starts_with("OTEL_") && name != CONFIG_FILE && is_set && !names.contains(&*name) {
            let warning = format!("{name} is ignored, because {} is set", CONFIG_FILE);
            config.warnings.push(warning);
        }
    }
    Ok(config)
}

fn content(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if size as u64 > MAX_SIZE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

fn configuration(
    mut root: Section<'_>,
    service: Service,
    attributes: Vec<KeyValue>,
    mut variables: Variables<'_>,
    names: &mut BTreeSet<String>,
) -> Config {
    if let Some(value) = root.required("file_format") {
        version(&value, &mut variables);
    }
    let disabled = root.boolean("disabled").unwrap_or(false);
    let resource = resource::resource(root.get("resource"), service, attributes, &mut |name| {
        names.insert(name.to_owned());
        variables.text(name)
    });
    let propagators = root
        .get("propagator")
        .map(|value| propagators(value.section()))
        .unwrap_or_default();
    let mut general = root.get("attribute_limits").map(Value::section);
    let general = general.as_mut().map(limits).unwrap_or_default();

    let mut traces = Queued::default();
    let mut chosen = None;
    let mut span_limits = SpanLimits {
        max_attributes_per_span: general.count.unwrap_or(DEFAULT_COUNT),
        max_events_per_span: DEFAULT_COUNT,
        max_links_per_span: DEFAULT_COUNT,
        max_attributes_per_event: DEFAULT_COUNT,
        max_attributes_per_link: DEFAULT_COUNT,
    };
    let mut span_value_limit = general.length;
    if let Some(mut section) = root.get("tracer_provider").map(Value::section) {
        traces = queued(&mut section, Signal::Traces, Duration::from_secs(5));
        chosen = section.get("sampler").and_then(sampler);
        if let Some(mut section) = section.get("limits").map(Value::section) {
            let own = limits(&mut section);
            span_value_limit = own.length.or(span_value_limit);
            let mut set = |name: &str, limit: &mut u32| *limit = count(&mut section, name).unwrap_or(*limit);
            span_limits.max_attributes_per_span = own.count.unwrap_or(span_limits.max_attributes_per_span);
            set("event_count_limit", &mut span_limits.max_events_per_span);
            set("link_count_limit", &mut span_limits.max_links_per_span);
            set(
                "event_attribute_count_limit",
                &mut span_limits.max_attributes_per_event,
            );
            set(
                "link_attribute_count_limit",
                &mut span_limits.max_attributes_per_link,
            );
        }
        if let Some((name, value)) = section
            .get("id_generator")
            .and_then(|value| value.section().component())
        {
            match name {
                "random" => drop(value.section()),
                _ => value.refuse("is not a supported generator of ids"),
            }
        }
        section.refuse("tracer_configurator/development");
    }
    let mut logs = Queued::default();
    let mut log_limits = general;
    if let Some(mut section) = root.get("logger_provider").map(Value::section) {
        logs = queued(&mut section, Signal::Logs, Duration::from_secs(1));
        if let Some(mut section) = section.get("limits").map(Value::section) {
            let own = limits(&mut section);
            log_limits.length = own.length.or(log_limits.length);
            log_limits.count = own.count.or(log_limits.count);
        }
        section.refuse("logger_configurator/development");
    }
    let mut metered = root
        .get("meter_provider")
        .map(|value| metrics(value.section()))
        .unwrap_or_default();
    if service.export == Export::Never {
        (traces.destination, logs.destination, metered) = (None, None, Metrics::default());
    }
    let log_level = root.get("log_level").and_then(|value| value.choice(&LEVELS));
    let http = root
        .get("instrumentation/development")
        .map(|value| instrumentation(value.section()))
        .unwrap_or_default();
    root.refuse("distribution");
    drop(root);

    let (sampler, custom_sampler) = match chosen {
        Some(Chosen::Own(sampler)) => (Sampler::AlwaysOff, Some(sampler)),
        Some(Chosen::Sdk(sampler)) => (sampler, None),
        None => (Sampler::ParentBased(Box::new(Sampler::AlwaysOn)), None),
    };
    let directives = variables
        .text("RUST_LOG")
        .unwrap_or_else(|| service.log_levels.to_owned());
    Config {
        disabled,
        resource,
        sampler,
        custom_sampler,
        propagators,
        traces: traces.destination,
        metrics: metered.destination,
        #[cfg(feature = "prometheus")]
        prometheus: metered.prometheus,
        logs: logs.destination,
        span_batches: traces.batches,
        log_batches: logs.batches,
        measuring: metered.measuring,
        views: metered.views,
        // Later directives override earlier ones.
        log_directives: match log_level {
            Some(level) => {
                format!("{LOG_TARGET}={level},opentelemetry={level},opentelemetry_sdk={level},{directives}")
            }
            None => directives,
        },
        masking: variables.is_on("PII_MASKING", true),
        span_limits,
        span_value_limit,
        log_attribute_limit: log_limits.count.unwrap_or(DEFAULT_COUNT) as usize,
        log_value_limit: log_limits.length,
        http,
        exceptions: ExceptionSignal::default(),
        own_level: None,
        warnings: variables.warnings,
    }
}

/// Severities, as levels of `tracing`.
const LEVELS: [(&str, &str); 24] = [
    ("trace", "trace"),
    ("trace2", "trace"),
    ("trace3", "trace"),
    ("trace4", "trace"),
    ("debug", "debug"),
    ("debug2", "debug"),
    ("debug3", "debug"),
    ("debug4", "debug"),
    ("info", "info"),
    ("info2", "info"),
    ("info3", "info"),
    ("info4", "info"),
    ("warn", "warn"),
    ("warn2", "warn"),
    ("warn3", "warn"),
    ("warn4", "warn"),
    ("error", "error"),
    ("error2", "error"),
    ("error3", "error"),
    ("error4", "error"),
    ("fatal", "error"),
    ("fatal2", "error"),
    ("fatal3", "error"),
    ("fatal4", "error"),
];

fn version(value: &Value<'_>, variables: &mut Variables<'_>) {
    let Some(text) = value.text() else { return };
    let minor = text
        .strip_prefix("1.")
        .and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        None => value.refuse("must be \"1.0\" or a later version 1 of the schema"),
        Some(minor) if minor > MINOR_VERSION => variables.warn(format!(
            "the configuration file has a newer version than 1.{MINOR_VERSION}; new properties are refused"
        )),
        Some(_) => {}
    }
}

fn propagators(mut section: Section<'_>) -> Vec<Propagator> {
    let mut propagators = Vec::new();
    let mut add = |name: &str, value: &Value<'_>| match propagator(name) {
        Some(known) if propagators.contains(&known) => {}
        Some(known) => propagators.push(known),
        None => value.refuse("is not a supported propagator"),
    };
    for item in section.get("composite").iter().flat_map(Value::items) {
        if let Some((name, value)) = item.section().component() {
            add(name, &value);
            drop(value.section());
        }
    }
    if let Some(value) = section.get("composite_list")
        && let Some(list) = value.text()
    {
        let names = list.split(',').map(str::trim);
        for name in names.filter(|name| !matches!(*name, "" | "none")) {
            add(name, &value);
        }
    }
    propagators
}

const DEFAULT_COUNT: u32 = 128;

/// Limits that spans and log records have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    length: Option<usize>,
    count: Option<u32>,
}

fn limits(section: &mut Section<'_>) -> Limits {
    // Values are never nested as deep as the default.
    if let Some(value) = section.get("attribute_value_depth_limit")
        && value.any_integer().is_some_and(|depth| depth < 64)
    {
        value.refuse("only 64 or more is supported");
    }
    Limits {
        length: section.count("attribute_value_length_limit", 0..=i64::MAX),
        count: count(section, "attribute_count_limit"),
    }
}

fn count(section: &mut Section<'_>, name: &str) -> Option<u32> {
    section.count(name, 0..=u32::MAX.into())?.try_into().ok()
}

/// A signal with a queue.
#[derive(Debug, Default)]
struct Queued {
    destination: Option<Destination>,
    batches: BatchSettings,
}

/// Reads `processors`. The simple processor is a queue that exports each entry at once.
fn queued(section: &mut Section<'_>, signal: Signal, delay: Duration) -> Queued {
    let mut queued = Queued::default();
    let processors = section
        .required("processors")
        .map(|list| list.items())
        .unwrap_or_default();
    for (index, item) in processors.into_iter().enumerate() {
        if index > 0 {
            item.refuse("only one processor is supported");
        }
        let Some((kind, value)) = item.section().component() else {
            continue;
        };
        let mut section = match kind {
            "batch" | "simple" => value.section(),
            _ => {
                value.refuse("is not a supported processor");
                continue;
            }
        };
        let mut batches = BatchSettings {
            delay,
            ..BatchSettings::default()
        };
        if kind == "batch" {
            // Queues are limited to a million entries, to bound their memory.
            batches.queue_size = section
                .count("max_queue_size", 1..=1_000_000)
                .unwrap_or(batches.queue_size);
            let size = section
                .count("max_export_batch_size", 1..=i64::MAX)
                .unwrap_or(batches.batch_size);
            batches.batch_size = size.min(batches.queue_size);
            batches.delay = section.delay("schedule_delay").unwrap_or(delay);
            batches.timeout = section.timeout("export_timeout").unwrap_or(batches.timeout);
        } else {
            batches.batch_size = 1;
        }
        let exporter = section.required("exporter");
        queued = Queued {
            destination: exporter.and_then(|value| exporters::exporter(value, signal, |_| {})),
            batches,
        };
    }
    queued
}

/// Reads the settings of HTTP, and accepts what this crate does anyway: the stable conventions of HTTP and databases. The
/// other languages have sections of their own.
fn instrumentation(mut section: Section<'_>) -> HttpSettings {
    let mut http = HttpSettings::default();
    if let Some(mut general) = section.get("general").map(Value::section) {
        if let Some(value) = general.get("stability_opt_in_list")
            && let Some(list) = value.text()
        {
            let mut names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            if !names.all(|name| matches!(name, "http" | "database")) {
                value.refuse("only http and database are supported");
            }
        }
        for name in ["http", "db"] {
            let Some(mut domain) = general.get(name).map(Value::section) else {
                continue;
            };
            if let Some(mut semconv) = domain.get("semconv").map(Value::section) {
                semconv.get("version").and_then(|version| version.integer(1..=1));
                for name in ["experimental", "dual_emit"] {
                    if let Some(value) = semconv.get(name)
                        && value.boolean() == Some(true)
                    {
                        value.refuse("only false is supported");
                    }
                }
            }
            if name == "http" {
                for (name, side) in [("client", &mut http.client), ("server", &mut http.server)] {
                    *side = domain
                        .get(name)
                        .map(|value| http_side(value.section()))
                        .unwrap_or_default();
                }
            }
        }
        for name in ["rpc", "messaging", "gen_ai", "sanitization"] {
            general.refuse(name);
        }
    }
    section.refuse("rust");
    for name in [
        "cpp", "dotnet", "erlang", "go", "java", "js", "php", "python", "ruby", "swift",
    ] {
        section.take(name);
    }
    http
}

fn http_side(mut section: Section<'_>) -> SideSettings {
    let mut headers = |name| {
        let names = section.get(name).map(|list| list.items()).unwrap_or_default();
        let names = names
            .iter()
            .filter_map(|name| valid(name, http::is_header, "is not the name of a header"));
        names.map(|name| http::header(&name)).collect()
    };
    SideSettings {
        request_headers: headers("request_captured_headers"),
        response_headers: headers("response_captured_headers"),
        known_methods: section.get("known_methods").map(|list| {
            let methods = list.possibly_no_items();
            let methods = methods
                .iter()
                .filter_map(|name| valid(name, http::is_method, "is not an HTTP method"));
            methods.collect()
        }),
    }
}

/// Returns the string if it `is_valid`.
fn valid(value: &Value<'_>, is_valid: fn(&str) -> bool, reason: &str) -> Option<String> {
    let text = value.text()?;
    let is_valid = is_valid(&text);
    if !is_valid {
        value.refuse(reason);
    }
    is_valid.then_some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use opentelemetry::Key;
    use opentelemetry_sdk::metrics::Temporality;
    use otlp_recorder::{Compression, ExemplarFilter, Protocol};

    use super::*;
    use crate::b3::Encoding;

    const SERVICE: Service = Service::new("app", "1");

    /// Reads a value without problems.
    pub(super) fn value_of<T>(yaml: &str, read: impl FnOnce(Value<'_>) -> T) -> T {
        let root = yaml::parse(yaml, &|_| None, &mut BTreeSet::new()).unwrap();
        let problems = Problems::default();
        let value = read(Value::root(&root, &problems));
        assert_eq!(problems.into_inner(), []);
        value
    }

    fn read_file(path: &str, set: &[(&str, &str)]) -> Result<Config, ConfigFileError> {
        let lookup = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let environment = set.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        read(path, SERVICE, Vec::new(), Variables::new(&lookup), environment)
    }

    fn read_text(yaml: &str, set: &[(&str, &str)]) -> Result<Config, ConfigFileError> {
        let name = format!(
            "otel-{}-{:?}.yaml",
            std::process::id(),
            std::thread::current().id()
        );
        let path = std::env::temp_dir().join(name);
        fs::write(&path, yaml).unwrap();
        let config = read_file(path.to_str().unwrap(), set);
        fs::remove_file(path).unwrap();
        config
    }

    fn problems(yaml: &str) -> Vec<String> {
        read_text(yaml, &[]).unwrap_err().problems
    }

    #[cfg(feature = "prometheus")]
    #[test]
    fn every_example_of_the_schema_is_effective_or_refused_by_name() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otel-configuration");
        let Ok(listed) = fs::read_to_string(examples.join("refusals.txt")) else {
            // The published package does not contain the examples.
            return;
        };
        let mut found = String::new();
        let mut files = 0;
        for folder in ["1.0", "main"] {
            let mut paths: Vec<_> = fs::read_dir(examples.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            paths.sort();
            for path in paths {
                files += 1;
                let name = path.file_name().unwrap().to_str().unwrap();
                for problem in read_file(path.to_str().unwrap(), &[])
                    .err()
                    .iter()
                    .flat_map(|error| &error.problems)
                {
                    found.push_str(&format!("{folder}/{name}: {problem}\n"));
                }
            }
        }
        assert!(files > 70, "{files}");
        assert!(found == listed, "{found}");
    }

    #[test]
    fn every_property_has_an_effect() {
        let yaml = r#"
file_format: "1.0"
disabled: true
log_level: warn
attribute_limits: {attribute_value_length_limit: 10, attribute_count_limit: 11}
propagator:
  composite: [b3: , tracecontext: ]
  composite_list: baggage,b3multi,b3
resource:
  attributes:
    - {name: team, value: [a, b], type: string_array}
    - {name: service.version, value: "7"}
    - {name: ignored, value: }
  attributes_list: team=x,region=eu%20west
  schema_url: https://example.com/schema
  detection/development:
    attributes: {excluded: [process.pid, host.*]}
    detectors: [process: , host: , service: ]
tracer_provider:
  processors:
    - batch:
        schedule_delay: 1
        export_timeout: 0
        max_queue_size: 3
        max_export_batch_size: 40
        exporter:
          otlp_http:
            endpoint: https://user:s3cret@traces.example/in?q=1
            headers: [{name: a, value: "1"}, {name: c, value: }]
            headers_list: a=2,b=3%2C4
            compression: gzip
            timeout: 6000
            encoding: json
  limits:
    attribute_value_length_limit: 20
    attribute_count_limit: 21
    event_count_limit: 22
    link_count_limit: 23
    event_attribute_count_limit: 24
    link_attribute_count_limit: 25
  sampler: {trace_id_ratio_based: {ratio: 0.25}}
logger_provider:
  processors:
    - simple:
        exporter: {otlp_grpc: {endpoint: "logs:4317", tls: {insecure: true}}}
  limits: {attribute_count_limit: 31}
meter_provider:
  readers:
    - periodic:
        interval: 7000
        timeout: 8000
        exporter: {otlp_grpc: {temporality_preference: low_memory}}
  exemplar_filter: always_on
instrumentation/development:
  general:
    http:
      client: {request_captured_headers: [X-Tenant], known_methods: [BREW]}
      server: {response_captured_headers: [Content-Language, Vary], known_methods: []}
"#;
        let set = [
            ("OTEL_SERVICE_NAME", "detected"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "9"),
        ];
        let config = read_text(yaml, &set).unwrap();
        assert!(config.disabled && config.log_directives.starts_with("otlp_recorder=warn,"));
        assert_eq!(
            config.propagators,
            [
                Propagator::B3(Encoding::Single),
                Propagator::TraceContext,
                Propagator::Baggage,
                Propagator::B3(Encoding::Multiple),
            ]
        );
        let attribute =
            |key: &'static str| config.resource.get(&Key::new(key)).map(|value| value.to_string());
        assert_eq!(attribute("team").as_deref(), Some(r#"["a","b"]"#));
        assert_eq!(attribute("region").as_deref(), Some("eu west"));
        assert_eq!(attribute("service.version").as_deref(), Some("7"));
        assert_eq!(attribute("service.name").as_deref(), Some("detected"));
        assert!(attribute("service.instance.id").is_some() && attribute("os.type").is_some());
        for absent in ["ignored", "process.pid", "host.arch"] {
            assert_eq!(attribute(absent), None, "{absent}");
        }
        assert_eq!(config.resource.schema_url(), Some("https://example.com/schema"));

        let Some(Destination::Collector(traces)) = config.traces else {
            panic!("{:?}", config.traces);
        };
        assert_eq!(traces.endpoint, "https://traces.example/in?q=1");
        assert_eq!(
            (traces.protocol, traces.compression),
            (Protocol::HttpJson, Compression::Gzip)
        );
        assert_eq!(traces.timeout, Duration::from_secs(6));
        assert_eq!(traces.headers["a"], "1");
        assert_eq!(traces.headers["b"], "3,4");
        assert_eq!(traces.headers["authorization"], "Basic dXNlcjpzM2NyZXQ=");
        assert_eq!(traces.headers.len(), 3);
        assert_eq!(
            config.span_batches,
            BatchSettings {
                queue_size: 3,
                batch_size: 3,
                delay: Duration::from_millis(1),
                timeout: Duration::from_secs(3_600),
            }
        );
        let limits = config.span_limits;
        assert_eq!(config.span_value_limit, Some(20));
        assert_eq!(
            [
                limits.max_attributes_per_span,
                limits.max_events_per_span,
                limits.max_links_per_span,
                limits.max_attributes_per_event,
                limits.max_attributes_per_link,
            ],
            [21, 22, 23, 24, 25]
        );
        assert!(matches!(config.sampler, Sampler::TraceIdRatioBased(0.25)));

        let Some(Destination::Collector(logs)) = config.logs else {
            panic!("{:?}", config.logs);
        };
        assert_eq!(
            (logs.protocol, logs.endpoint.as_str()),
            (Protocol::Grpc, "http://logs:4317")
        );
        assert_eq!(config.log_batches.batch_size, 1);
        assert_eq!(
            (config.log_attribute_limit, config.log_value_limit),
            (31, Some(10))
        );

        let measuring = config.measuring;
        assert_eq!(measuring.interval, Duration::from_secs(7));
        assert_eq!(measuring.timeout, Duration::from_secs(8));
        assert_eq!(measuring.temporality, Temporality::LowMemory);
        assert_eq!(measuring.exemplars, ExemplarFilter::AlwaysOn);
        let [client, server] = [&config.http.client, &config.http.server];
        let captured = [client, server].map(|side| (side.request_headers.len(), side.response_headers.len()));
        assert_eq!(captured, [(1, 0), (0, 2)]);
        assert_eq!(client.known_methods, Some(vec!["BREW".to_owned()]));
        assert_eq!(server.known_methods, Some(Vec::new()));
        let mut warnings = config.warnings;
        warnings.sort();
        assert_eq!(
            warnings,
            [
                "OTEL_BSP_MAX_QUEUE_SIZE is ignored, because OTEL_CONFIG_FILE is set",
                "OTEL_TRACES_SAMPLER is ignored, because OTEL_CONFIG_FILE is set",
            ]
        );
    }

    #[cfg(feature = "prometheus")]
    #[test]
    fn the_reader_that_is_scraped_has_the_names_of_both_versions() {
        use super::super::prometheus::Prometheus;

        let settings = |properties: &str| {
            let yaml = format!(
                "file_format: '1.0'\nmeter_provider:\n  readers: [pull: {{exporter: {{prometheus/development: \
                 {properties}}}}}]"
            );
            read_text(&yaml, &[]).unwrap().prometheus.unwrap()
        };
        assert_eq!(settings(""), Prometheus::default());
        let expected = Prometheus {
            host: "::1".to_owned(),
            port: 9,
            scope_labels: false,
            target_info: false,
            constant_labels: Some(super::super::patterns::Patterns {
                included: None,
                excluded: vec!["a".to_owned()],
            }),
            suffixes: false,
        };
        let common =
            "host: '::1', port: 9, translation_strategy: underscore_escaping_without_suffixes/development";
        for names in [
            "without_scope_info: true, without_target_info/development: true, with_resource_constant_labels",
            "scope_info_enabled: false, target_info_enabled/development: false, resource_constant_labels",
        ] {
            assert_eq!(
                settings(&format!("{{{common}, {names}: {{excluded: [a]}}}}")),
                expected
            );
        }
    }

    #[test]
    fn what_is_not_set_has_the_default_of_the_schema() {
        let config = read_text("file_format: '1.0'", &[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap();
        assert!(config.traces.is_none() && config.metrics.is_none() && config.logs.is_none());
        assert_eq!(config.propagators, []);
        let keys: Vec<_> = config.resource.iter().map(|(key, _)| key.as_str()).collect();
        assert!(
            !keys.contains(&"process.pid") && keys.contains(&"service.name"),
            "{keys:?}"
        );

        let minimal = "file_format: '1.0'\ntracer_provider: {processors: [batch: {exporter: {otlp_grpc: }}]}\n\
                       logger_provider: {processors: [batch: {schedule_delay: , exporter: {otlp_http: }}]}\n\
                       meter_provider: {readers: [periodic: {exporter: {console: }}]}";
        let config = read_text(minimal, &[]).unwrap();
        let endpoint = |destination| match destination {
            Some(Destination::Collector(collector)) => collector.endpoint,
            other => format!("{other:?}"),
        };
        assert_eq!(endpoint(config.traces), "http://localhost:4317");
        assert_eq!(endpoint(config.logs), "http://localhost:4318/v1/logs");
        assert!(endpoint(config.metrics).contains("console"));
        assert_eq!(config.span_batches, BatchSettings::default());
        assert_eq!(config.log_batches.delay, Duration::from_secs(1));
        assert!(matches!(config.sampler, Sampler::ParentBased(_)));
        assert_eq!((config.log_attribute_limit, config.log_value_limit), (128, None));
    }

    #[test]
    fn a_problem_has_its_line_its_path_and_no_value() {
        for (yaml, expected) in [
            ("a: 1", "line 2: a: is not a known property"),
            (
                "disabled: maybe-s3cret",
                "disabled: must be a boolean, but is a string",
            ),
            ("log_level: s3cret", "log_level: must be one of trace, trace2"),
            (
                "tracer_provider: {processors: [batch: {exporter: {s3cretless: }}]}",
                "line 2: tracer_provider.processors[0].batch.exporter.s3cretless: is not a supported exporter",
            ),
            (
                "tracer_provider:\n  processors: [batch: {schedule_delay: -1, exporter: {console: }}]",
                "line 3: tracer_provider.processors[0].batch.schedule_delay: must be from 0 to 3600000",
            ),
            ("tracer_provider: {}", "tracer_provider.processors: is required"),
            (
                "tracer_provider: {processors: []}",
                "tracer_provider.processors: must not be an empty list",
            ),
            (
                "logger_provider: {processors: [simple: {exporter: {otlp_http: {headers: [{name: a, value: 1}]}}}]}",
                "headers[0].value: must be a string, but is an integer; put it in quotes",
            ),
            (
                "logger_provider: {processors: [simple: {exporter: {otlp_http: {endpoint: 's3cret@'}}}]}",
                "endpoint: must be an http or https URL",
            ),
            (
                "logger_provider: {processors: [simple: {exporter: {otlp_http: {tls: {ca_file: /none/s3cret}}}}]}",
                "tls.ca_file: the file cannot be read: entity not found",
            ),
            (
                "resource: {attributes_list: 's3cret'}",
                "resource.attributes_list: has an entry",
            ),
            (
                "propagator: {composite_list: s3cret}",
                "propagator.composite_list: is not a supported",
            ),
            ("distribution: {x: {y: 1}}", "distribution: is not supported"),
            (
                "instrumentation/development: {general: {http: {client: {request_captured_headers: [a, 's3 cret']}}}}",
                "general.http.client.request_captured_headers[1]: is not the name of a header",
            ),
            (
                "instrumentation/development: {general: {http: {server: {known_methods: ['s3 cret']}}}}",
                "general.http.server.known_methods[0]: is not an HTTP method",
            ),
            (
                "instrumentation/development: {general: {http: {server: {request_captured_headers: []}}}}",
                "general.http.server.request_captured_headers: must not be an empty list",
            ),
            (
                "instrumentation/development: {general: {db: {client: {known_methods: [GET]}}}}",
                "general.db.client: is not a known property",
            ),
            ("resource: ${S3:?s3cret}", "invalid substitution reference"),
        ] {
            let found = problems(&format!("file_format: '1.0'\n{yaml}")).join("; ");
            assert!(
                found.contains(expected) && !found.contains("s3cret\""),
                "{yaml}: {found}"
            );
            let without_names = found.replace("s3cretless", "");
            assert!(!without_names.contains("s3cret"), "{yaml}: {found}");
        }
        assert!(problems("disabled: true")[0].contains("file_format: is required"));
        for version in ["1.0", "'0.4'", "'1.0-rc.3'", "'2.0'", "one"] {
            assert!(problems(&format!("file_format: {version}"))[0].contains("line 1: file_format: must be"));
        }
        let newer = read_text("file_format: '1.7'", &[]).unwrap();
        assert!(newer.warnings[0].contains("newer version"));
        let missing = read_file("/none/otel.yaml", &[]).unwrap_err().to_string();
        assert!(
            missing.contains("/none/otel.yaml") && missing.contains("cannot be read"),
            "{missing}"
        );
    }
}
