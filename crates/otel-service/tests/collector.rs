//! The configuration of the collector, `config/otel-config.yaml`: its references resolve, it needs no
//! variables, and it masks like [`otel_service::mask`].
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use regex::{Captures, Regex};
use serde_json::Value;

const TEXT: &str = include_str!("../../../config/otel-config.yaml");

/// Variables that the configuration reads.
const VARIABLES: [&str; 5] = [
    "SCOUT_CLIENT_ID",
    "SCOUT_CLIENT_SECRET",
    "SCOUT_ENDPOINT",
    "SCOUT_ENVIRONMENT",
    "SCOUT_TOKEN_URL",
];

fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Returns the configuration with variables expanded; a variable that is not set has its default.
fn expanded(set: &BTreeMap<&str, &str>) -> Value {
    let reference = Regex::new(r"\$\{env:([A-Z_]+):-([^}]*)\}").unwrap();
    let text = reference.replace_all(TEXT, |found: &Captures<'_>| {
        (*set.get(&found[1]).unwrap_or(&&found[2])).to_owned()
    });
    parsed(&text)
}

fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(values) => values
            .iter()
            .map(|value| value.as_str().unwrap().to_owned())
            .collect(),
        other => panic!("{other} has no names"),
    }
}

fn pipelines(config: &Value) -> Vec<(&String, &Value)> {
    let pipelines = config["service"]["pipelines"].as_object().unwrap();
    assert_eq!(pipelines.len(), 9);
    pipelines.iter().collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

#[test]
fn pipelines_use_all_declared_components_and_no_others() {
    let config = parsed(TEXT);
    let connectors = names(&config["connectors"]);
    for kind in ["receivers", "processors", "exporters"] {
        let used: BTreeSet<String> = pipelines(&config)
            .iter()
            .flat_map(|(_, pipeline)| names(&pipeline[kind]))
            .collect();
        let mut declared = names(&config[kind]);
        if kind != "processors" {
            declared.extend(connectors.clone());
        }
        assert_eq!(used, declared, "{kind}");
    }
    let enabled = names(&config["service"]["extensions"]);
    assert_eq!(enabled, names(&config["extensions"]));
    let authenticator = &config["exporters"]["otlp_http/scout"]["auth"]["authenticator"];
    assert!(enabled.contains(authenticator.as_str().unwrap()));
}

/// Pipelines that receive telemetry mask it, and the pipelines of the exporters only receive masked telemetry.
#[test]
fn telemetry_is_masked_once_before_it_reaches_any_exporter() {
    let config = parsed(TEXT);
    for (name, pipeline) in pipelines(&config) {
        let processors = texts(&pipeline["processors"]);
        let (exporters, receivers) = (texts(&pipeline["exporters"]), texts(&pipeline["receivers"]));
        let expected: &[&str] = match name.as_str() {
            "traces" => &[
                "memory_limiter",
                "filter/health",
                "resource/environment",
                "transform/pii",
                "redaction/pii",
            ],
            "metrics" => &[
                "memory_limiter",
                "resource/environment",
                "transform/pii",
                "redaction/pii",
                "transform/merge",
            ],
            "logs" => &[
                "memory_limiter",
                "resource/environment",
                "transform/pii",
                "redaction/pii",
            ],
            name if name.ends_with("/scout") => &["filter/scout", "batch"],
            _ => &["batch"],
        };
        assert_eq!(processors, expected, "{name}");
        let (from, to) = match name.split_once('/') {
            None => ("otlp", "forward"),
            Some((_, "scout")) => ("forward", "otlp_http/scout"),
            Some(_) => ("forward", "debug"),
        };
        assert_eq!((receivers, exporters), (vec![from], vec![to]), "{name}");
    }
}

#[test]
fn endpoints_and_tls_are_configured() {
    let config = parsed(TEXT);
    assert_eq!(config["extensions"]["health_check"]["endpoint"], "0.0.0.0:13133");
    let protocols = &config["receivers"]["otlp"]["protocols"];
    assert_eq!(protocols["grpc"]["endpoint"], "0.0.0.0:4317");
    assert_eq!(protocols["http"]["endpoint"], "0.0.0.0:4318");
    let audience = &config["extensions"]["oauth2client"]["endpoint_params"]["audience"];
    assert_eq!(audience, "b14collector");
    let scout = &config["exporters"]["otlp_http/scout"];
    assert_eq!(scout["tls"]["insecure"], false);
    assert_eq!(scout["tls"]["insecure_skip_verify"], false);
    assert_eq!(scout["compression"], "gzip");
    assert_eq!(scout["retry_on_failure"]["enabled"], true);
    assert_eq!(scout["sending_queue"]["enabled"], true);
}

#[test]
fn every_variable_has_a_default_that_lets_the_collector_start() {
    let any = Regex::new(r"(?:^|[^$])\$\{([^}]*)\}").unwrap();
    let mut seen = BTreeSet::new();
    for found in any.captures_iter(TEXT) {
        let (name, _default) = found[1]
            .strip_prefix("env:")
            .and_then(|variable| variable.split_once(":-"))
            .unwrap_or_else(|| panic!("{} has no default", &found[0]));
        seen.insert(name.to_owned());
    }
    assert_eq!(seen, VARIABLES.map(str::to_owned).into());
    let config = expanded(&BTreeMap::new());
    let client = &config["extensions"]["oauth2client"];
    // The extension and the exporter do not start if one of these is empty.
    for value in [&client["client_id"], &client["client_secret"]] {
        assert!(!value.as_str().unwrap().is_empty());
    }
    for url in [
        &client["token_url"],
        &config["exporters"]["otlp_http/scout"]["endpoint"],
    ] {
        assert!(url.as_str().unwrap().starts_with("https://"), "{url}");
    }
}

#[test]
fn the_scout_exporter_is_enabled_only_by_an_endpoint() {
    let conditions = |config: &Value| -> Vec<String> {
        let filter = &config["processors"]["filter/scout"];
        [("traces", "span"), ("metrics", "metric"), ("logs", "log_record")]
            .iter()
            .flat_map(|(signal, item)| texts(&filter[signal][item]))
            .map(str::to_owned)
            .collect()
    };
    let without = conditions(&expanded(&BTreeMap::new()));
    assert_eq!(without, [r#""" == """#; 3]);
    let with = [
        ("SCOUT_ENDPOINT", "https://tenant.example:4318"),
        ("SCOUT_ENVIRONMENT", "production"),
    ];
    let config = expanded(&with.into());
    assert_eq!(conditions(&config), [r#""https://tenant.example:4318" == """#; 3]);
    assert_eq!(
        config["exporters"]["otlp_http/scout"]["endpoint"],
        "https://tenant.example:4318"
    );
    for attribute in config["processors"]["resource/environment"]["attributes"]
        .as_array()
        .unwrap()
    {
        assert_eq!(attribute["value"], "production");
        assert_eq!(attribute["action"], "upsert");
    }
}

#[test]
fn only_spans_of_health_checks_are_dropped() {
    let config = parsed(TEXT);
    let conditions = texts(&config["processors"]["filter/health"]["traces"]["span"]);
    let condition =
        Regex::new(r#"^attributes\["([^"]+)"\] != nil and IsMatch\(attributes\["([^"]+)"\], "([^"]+)"\)$"#);
    let condition = condition.unwrap();
    for text in conditions {
        let found = condition.captures(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(&found[1], &found[2]);
        let path = Regex::new(&unescaped(&found[3])).unwrap();
        for dropped in ["/api/health", "/api/health/live", "/health", "/healthz"] {
            assert!(path.is_match(dropped), "{path} {dropped}");
        }
        for kept in ["/api/articles/", "/api/healthy", "/api/articles/health", "/"] {
            assert!(!path.is_match(kept), "{path} {kept}");
        }
    }
}

/// Unescapes an OTTL string in the configuration: `\` escapes the next character, and `$$` stands for `$`.
fn unescaped(text: &str) -> String {
    let escape = Regex::new(r"\\(.)").unwrap();
    escape.replace_all(text, "$1").replace("$$", "$")
}

/// Returns the pattern and the replacement of each masking statement, by its target.
fn masking() -> BTreeMap<String, (String, String)> {
    let statement = Regex::new(
        r#"^(replace_pattern|replace_all_patterns)\(([a-z_.]+), (?:"(value|key)", )?"((?:[^"\\]|\\.)*)", "([^"\\]*)"\)( where Is(?:String|Map)\(log\.body\))?$"#,
    )
    .unwrap();
    let config = parsed(TEXT);
    let pii = &config["processors"]["transform/pii"];
    // Telemetry that cannot be masked must not be exported.
    assert_eq!(pii["error_mode"], "propagate");
    let mut rules = BTreeMap::new();
    for signal in ["trace_statements", "log_statements", "metric_statements"] {
        for group in pii[signal].as_array().unwrap() {
            for text in texts(&group["statements"]) {
                let found = statement.captures(text).unwrap_or_else(|| panic!("{text}"));
                let is_map = &found[1] == "replace_all_patterns";
                assert_eq!(is_map, found.get(3).is_some(), "{text}");
                let context = group["context"].as_str().unwrap();
                assert!(found[2].starts_with(&format!("{context}.")), "{text}");
                let target = match found.get(3) {
                    Some(mode) => format!("{} {}", &found[2], mode.as_str()),
                    None => found[2].to_owned(),
                };
                rules.insert(target, (unescaped(&found[4]), unescaped(&found[5])));
            }
        }
    }
    rules
}

/// Returns the rule of all targets: those of `transform/pii` and the pattern of `redaction/pii`.
fn rule() -> (Regex, String) {
    let config = parsed(TEXT);
    let patterns = texts(&config["processors"]["redaction/pii"]["blocked_values"]);
    let [pattern] = &patterns[..] else {
        panic!("more than one pattern")
    };
    let pattern = pattern.replace("$$", "$");
    let mut masking = masking();
    // The = before the value of a member is not part of an address.
    let (of_state, _) = masking.get_mut("span.trace_state").unwrap();
    *of_state = of_state.replace("*+./?", "*+./=?").replace("'+./?", "'+./=?");
    let (_, replacement) = masking["log.body"].clone();
    for (target, rule) in masking {
        assert_eq!(rule, (pattern.clone(), replacement.clone()), "{target}");
    }
    (Regex::new(&pattern).unwrap(), replacement)
}

#[test]
fn every_text_that_the_collector_reaches_is_masked_by_the_same_rule() {
    rule();
    let targets: Vec<String> = masking().into_keys().collect();
    let mut expected = [
        "span.name",
        "span.status.message",
        "span.trace_state",
        "spanevent.name",
        "scope.name",
        "scope.version",
        "log.body",
        "log.event_name",
        "log.severity_text",
        "metric.name",
        "metric.description",
        "metric.unit",
    ]
    .map(str::to_owned)
    .to_vec();
    let maps = ["resource", "scope", "span", "spanevent", "log", "datapoint"]
        .map(|place| format!("{place}.attributes"));
    for map in maps
        .iter()
        .map(String::as_str)
        .chain(["log.body", "exemplar.filtered_attributes"])
    {
        expected.extend(["key", "value"].map(|mode| format!("{map} {mode}")));
    }
    expected.sort();
    assert_eq!(targets, expected);
}

#[test]
fn the_collector_masks_like_the_process() {
    let (pattern, replacement) = rule();
    for text in [
        "alice@example.com",
        "ab@example.com",
        "Key (email)=(alice@example.com) already exists; see bob@example.org.",
        "{'to':'alice@example.com'}",
        "дима@пример.рф, 佐々木@example.jp→x@example.com",
        "to=alice%40example.com; x:a%2540example.com",
        "https://example.org/@alice@example.com from=bob@mail.example.co.uk",
        "first.last+tag@sub-domain.example.com",
        "celery@worker 100%40 user@ x@.com",
        "carla{secret}@x.example, carla/secret@x.example, o'brien$&!#*=?^`|~@x.example",
        "al***@example.com ***@example.com",
    ] {
        let masked = pattern.replace_all(text, replacement.as_str());
        assert_eq!(masked, otel_service::mask(text), "{text:?}");
    }
}
