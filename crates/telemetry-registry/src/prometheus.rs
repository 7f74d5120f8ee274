//! The names of metrics in Prometheus, according to the OpenTelemetry specification "Prometheus and OpenMetrics
//! Compatibility", which the Collector's prometheus exporter and Prometheus's OTLP receiver follow by default.
//! Dashboards and alerts use these names.

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::{Registry, Use};

/// Labels of every series, derived from `service.name` and `service.instance.id`.
const COMMON_LABELS: [&str; 2] = ["job", "instance"];

impl Registry {
    /// Returns the series of the declared metrics, each with its possible labels.
    pub fn prometheus_series(&self) -> BTreeMap<String, BTreeSet<String>> {
        let names = self.metrics.keys().chain(&self.imported_metrics);
        let metrics = names.filter_map(|name| Some((name, self.metric(name)?)));
        let mut series = BTreeMap::new();
        for (name, (definition, uses)) in metrics {
            let name = series_name(name, &definition.instrument, &definition.unit);
            let labels = labels(uses.iter().chain(self.measures.get("*").into_iter().flatten()));
            if definition.instrument == "histogram" {
                let mut bucket_labels = labels.clone();
                bucket_labels.insert("le".to_owned());
                series.insert(format!("{name}_bucket"), bucket_labels);
                series.insert(format!("{name}_sum"), labels.clone());
                series.insert(format!("{name}_count"), labels);
            } else {
                series.insert(name, labels);
            }
        }
        series
    }
}

fn labels<'a>(uses: impl Iterator<Item = &'a Use>) -> BTreeSet<String> {
    let own_labels = uses.map(|used| words(&used.name).join("_"));
    own_labels.chain(COMMON_LABELS.map(str::to_owned)).collect()
}

/// Returns the name with the unit appended, unless the name contains it, and with the suffix `total` for
/// counters.
fn series_name(name: &str, instrument: &str, unit: &str) -> String {
    let mut words = words(name);
    let unit = match unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "1" if instrument == "gauge" => Some("ratio"),
        // Text in braces is an annotation, not a unit; the registry has no other units.
        _ => None,
    };
    words.extend(unit.filter(|unit| !words.contains(unit)));
    if instrument == "counter" {
        words.retain(|word| *word != "total");
        words.push("total");
    }
    words.join("_")
}

fn words(name: &str) -> Vec<&str> {
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::series_name;

    #[test]
    fn names_follow_the_specification() {
        for (name, instrument, unit, expected) in [
            (
                "http.server.request.duration",
                "histogram",
                "s",
                "http_server_request_duration_seconds",
            ),
            (
                "http_request_duration_seconds",
                "histogram",
                "s",
                "http_request_duration_seconds",
            ),
            (
                "http_requests_total",
                "counter",
                "{request}",
                "http_requests_total",
            ),
            (
                "process.cpu.time",
                "counter",
                "s",
                "process_cpu_time_seconds_total",
            ),
            (
                "process.memory.usage",
                "updowncounter",
                "By",
                "process_memory_usage_bytes",
            ),
            (
                "http.server.active_requests",
                "updowncounter",
                "{request}",
                "http_server_active_requests",
            ),
            ("outbox.age", "gauge", "s", "outbox_age_seconds"),
            ("share", "gauge", "1", "share_ratio"),
        ] {
            assert_eq!(series_name(name, instrument, unit), expected);
        }
    }
}
