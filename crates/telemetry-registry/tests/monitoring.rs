//! Dashboards and alerts refer to existing series and labels. Each alert has a section in the runbook, and
//! each section has an alert.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use telemetry_registry::{Layout, Registry};

const DASHBOARD: &str = "deploy/grafana/pressroom.json";
const ALERTS: &str = "deploy/alerts/pressroom.yaml";
const RUNBOOK: &str = "docs/operations.md";

/// Keywords followed by a list of labels in parentheses.
const LABEL_LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "inf"];

type Series = BTreeMap<String, BTreeSet<String>>;

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    alert: String,
    expr: String,
    annotations: BTreeMap<String, String>,
}

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

fn series() -> Series {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    let layout = Layout::read(Path::new(path)).unwrap();
    Registry::load(&layout).unwrap().prometheus_series()
}

fn alerts() -> Vec<Alert> {
    let rules: Rules = serde_saphyr::from_str(&file(ALERTS)).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Returns all panels, including those in rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let here = dashboard["panels"].as_array().into_iter().flatten();
    here.flat_map(|panel| std::iter::once(panel).chain(panels(panel)))
        .collect()
}

/// Whether the text after a word shows that the word is a function, as in `rate (` or `sum by (`.
fn is_function(next: &str) -> bool {
    ["(", "by ", "by(", "without ", "without("]
        .iter()
        .any(|start| next.starts_with(start))
}

/// Returns the series in an expression that do not exist, and the labels that none of its series have.
fn unknown(expression: &str, series: &Series) -> Vec<String> {
    let mut unknown = Vec::new();
    let (mut known_labels, mut listed) = (BTreeSet::new(), Vec::new());
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || "\"[{0123456789".contains(c)) {
        rest = &rest[start..];
        let first = rest.chars().next().unwrap_or_default();
        if first == '"' || first == '[' {
            let end = rest[1..].find(if first == '"' { '"' } else { ']' }).unwrap();
            rest = &rest[end + 2..];
            continue;
        }
        assert_ne!(first, '{', "a selector without a name: {expression}");
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':' && c != '.');
        let (word, after) = rest.split_at(length.unwrap_or(rest.len()));
        rest = after;
        let next = after.trim_start();
        if LABEL_LISTS.contains(&word) {
            let (labels, after) = next.trim_start_matches('(').split_once(')').unwrap();
            let labels = labels.split(',').map(|label| label.trim().to_owned());
            listed.extend(labels.filter(|label| !label.is_empty()));
            rest = after;
        } else if first.is_ascii_digit() || OPERATORS.contains(&word) || is_function(next) {
        } else if let Some(labels) = series.get(word) {
            known_labels.extend(labels.iter().cloned());
            if let Some(matchers) = next.strip_prefix('{') {
                let (matchers, after) = matchers.split_once('}').unwrap();
                rest = after;
                for matcher in matchers.split(',').filter(|matcher| !matcher.trim().is_empty()) {
                    let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
                    if !labels.contains(label) {
                        unknown.push(format!("{word}{{{label}}}"));
                    }
                }
            }
        } else {
            unknown.push(word.to_owned());
        }
    }
    unknown.extend(listed.into_iter().filter(|label| !known_labels.contains(label)));
    unknown
}

#[test]
fn unknown_series_and_labels_are_found() {
    let series = series();
    for (expression, expected) in [
        (
            "sum(rate(http_requests_total{job=~\"a|b\",status=\"500\"}[5m])) > 1",
            &[][..],
        ),
        (
            "histogram_quantile(0.99, sum by (le, http_route) (rate(http_server_request_duration_seconds_bucket[5m])))",
            &[],
        ),
        ("http_request_total", &["http_request_total"]),
        (
            "http_requests_total{code=\"500\"}",
            &["http_requests_total{code}"],
        ),
        ("sum by (queue) (celery_queue_waiting)", &["queue"]),
        (
            "http_server_request_duration_seconds > 0",
            &["http_server_request_duration_seconds"],
        ),
        ("outbox_age_seconds and on () outbox_len", &["outbox_len"]),
    ] {
        let mut found = unknown(expression, &series);
        found.sort();
        assert_eq!(found, expected, "{expression}");
    }
}

#[test]
fn panels_refer_to_existing_series_and_labels() {
    let dashboard: Value = serde_json::from_str(&file(DASHBOARD)).unwrap();
    let series = series();
    let panels = panels(&dashboard);
    let mut expressions = 0;
    for panel in &panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(
                unknown(expression, &series),
                [""; 0],
                "{}: {expression}",
                panel["title"]
            );
            expressions += 1;
        }
    }
    assert!(expressions > 30, "only {expressions} expressions were found");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    let titles: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles.len(), panels.len(), "two panels have the same title");
}

#[test]
fn alerts_refer_to_existing_series_and_to_the_runbook() {
    let series = series();
    let runbook = file(RUNBOOK);
    let (_, section) = runbook
        .split_once(
            "
## Alerts
",
        )
        .expect("the runbook has a section \"Alerts\"");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut described: BTreeSet<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let alerts = alerts();
    assert!(!alerts.is_empty());
    for alert in &alerts {
        assert_eq!(unknown(&alert.expr, &series), [""; 0], "{}", alert.alert);
        let expected = format!("{RUNBOOK}#{}", alert.alert.to_lowercase());
        assert_eq!(alert.annotations.get("runbook"), Some(&expected));
        assert!(
            described.remove(alert.alert.as_str()),
            "the runbook has no section for {}",
            alert.alert
        );
    }
    assert_eq!(described, BTreeSet::new(), "these sections have no alert");
}

/// Returns the text of all source files of the crates.
fn sources() -> String {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

#[test]
fn label_values_in_alerts_occur_in_the_sources() {
    let sources = sources();
    let mut compared = BTreeSet::new();
    for alert in alerts() {
        let values = alert.expr.split("=\"").skip(1);
        compared.extend(values.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    assert!(compared.contains("pressroom-app"), "found only {compared:?}");
    for value in compared {
        assert!(
            sources.contains(&format!("\"{value}\"")),
            "{value:?} does not occur in the sources"
        );
    }
}
