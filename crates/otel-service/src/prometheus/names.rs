//! Translates the names of metrics and labels according to "Prometheus and OpenMetrics Compatibility" in the
//! OpenTelemetry specification.

/// Name of a metric.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct MetricName {
    /// Name of the family in OpenMetrics.
    pub(super) family: String,
    /// Name of the samples, and of the family in the text format.
    pub(super) sample: String,
    /// Unit, if the name of the family ends with it.
    pub(super) unit: Option<String>,
}

/// Returns the name of a metric; `suffixes` adds the unit and, to counters, `_total`.
pub(super) fn metric_name(name: &str, unit: &str, is_counter: bool, suffixes: bool) -> MetricName {
    const TOTAL: &str = "_total";
    let sample = sanitized(name, true);
    if !suffixes {
        let family = sample
            .strip_suffix(TOTAL)
            .filter(|_| is_counter)
            .unwrap_or(&sample)
            .to_owned();
        return MetricName {
            family,
            sample,
            unit: None,
        };
    }
    let mut family = match is_counter {
        true => sample.strip_suffix(TOTAL).unwrap_or(&sample).to_owned(),
        false => sample,
    };
    let unit = unit_name(unit);
    if !unit.is_empty() && !family.ends_with(&unit) {
        family = format!("{family}_{unit}");
    }
    let total = if is_counter { TOTAL } else { "" };
    MetricName {
        sample: format!("{family}{total}"),
        unit: (!unit.is_empty() && family.ends_with(&format!("_{unit}"))).then_some(unit),
        family,
    }
}

/// Returns the name of a label.
pub(super) fn label_name(key: &str) -> String {
    sanitized(key, false)
}

/// Replaces characters that are not allowed, and sequences of underscores, with one underscore.
fn sanitized(text: &str, allows_colon: bool) -> String {
    let mut name = String::with_capacity(text.len());
    for character in text.chars() {
        let is_allowed = character.is_ascii_alphanumeric() || character == ':' && allows_colon;
        let character = if is_allowed { character } else { '_' };
        if character.is_ascii_digit() && name.is_empty() {
            name.push('_');
        }
        if character != '_' || !name.ends_with('_') {
            name.push(character);
        }
    }
    if name.is_empty() { "_".to_owned() } else { name }
}

/// Translates a UCUM unit. Annotations in braces are dropped; the dimensionless unit has no name.
fn unit_name(unit: &str) -> String {
    let mut rest = unit;
    let mut bare = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        bare.push_str(before);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    bare.push_str(rest);
    let (amount, per) = bare.split_once('/').unwrap_or((&bare, ""));
    let (amount, per) = (amount.trim(), per.trim());
    let mut name = match amount {
        "1" => "",
        amount => plural(amount),
    }
    .to_owned();
    if !per.is_empty() {
        name = format!("{name}_per_{}", singular(per));
    }
    sanitized(&name, true).trim_matches('_').to_owned()
}

fn plural(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tebibytes",
        "kBy" | "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        other => other,
    }
}

fn singular(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" | "min" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" | "wk" => "week",
        "mo" => "month",
        "y" | "a" => "year",
        other => plural(other).strip_suffix('s').unwrap_or(plural(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated() {
        for (name, unit, is_counter, family, sample) in [
            (
                "http.server.request.duration",
                "s",
                false,
                "http_server_request_duration_seconds",
                "",
            ),
            (
                "http_request_duration_seconds",
                "s",
                false,
                "http_request_duration_seconds",
                "",
            ),
            (
                "http_requests_total",
                "{request}",
                true,
                "http_requests",
                "http_requests_total",
            ),
            ("io", "By", true, "io_bytes", "io_bytes_total"),
            ("io_total", "By", true, "io_bytes", "io_bytes_total"),
            ("foo.bar_total", "1", false, "foo_bar_total", ""),
            ("cpu", "1", false, "cpu", ""),
            ("a..b--c", "", false, "a_b_c", ""),
            ("2xx:ok", "", false, "_2xx:ok", ""),
            ("speed", "m/s", false, "speed_meters_per_second", ""),
            ("rate", "{packet}/s", false, "rate_per_second", ""),
            ("load", "%", false, "load_percent", ""),
            ("heat", "kW.h", false, "heat_kW_h", ""),
        ] {
            let found = metric_name(name, unit, is_counter, true);
            let sample = if sample.is_empty() { family } else { sample };
            assert_eq!(
                (found.family.as_str(), found.sample.as_str()),
                (family, sample),
                "{name} {unit}"
            );
        }
        let seconds = metric_name("a", "s", false, true);
        assert_eq!(seconds.unit.as_deref(), Some("seconds"));
        assert_eq!(metric_name("inbytes", "By", false, true).unit, None);
        let plain = metric_name("foo.bar", "By", true, false);
        assert_eq!(
            (plain.family.as_str(), plain.sample.as_str(), plain.unit),
            ("foo_bar", "foo_bar", None)
        );
        assert_eq!(label_name("a.b:c__d"), "a_b_c_d");
        assert_eq!(label_name("1x"), "_1x");
        assert_eq!(label_name("é"), "_");
    }

    #[test]
    fn names_have_no_suffixes_if_suffixes_are_off() {
        let found = metric_name("http.requests", "s", true, false);
        assert_eq!(
            (&*found.family, &*found.sample),
            ("http_requests", "http_requests")
        );
    }
}
