//! The destination of one signal: `OTEL_<SIGNAL>_EXPORTER`, and the OTLP settings if the exporter is `otlp`.

use otlp_recorder::{CustomExporter, Destination, Signal};

use super::otlp;
use super::settings::CONFIG_FILE;
use super::variables::{Variables, in_variables, shown};
use crate::console;
use crate::service::Export;

/// Returns the destination of `signal`, or `None` if the signal is not exported.
pub(super) fn destination(
    signal: Signal,
    default: Export,
    variables: &mut Variables<'_>,
) -> Option<Destination> {
    if default == Export::Never {
        return None;
    }
    let exporter = exporter_of(signal);
    let configured = otlp::endpoint_variable(signal, variables).is_some();
    let selected = variables.keyword(&exporter).map(|names| pushed(signal, names));
    match selected.as_deref() {
        None if default == Export::WhenConfigured && !configured => return None,
        None | Some("otlp") => {}
        Some("none") => return None,
        Some("console") => {
            // Log events are written to standard output in any case.
            let console = CustomExporter::new("console", console::write);
            return (signal != Signal::Logs).then(|| console.into());
        }
        Some(other) => variables.warn(format!(
            "{exporter} is {}, not otlp, console or none; otlp is used",
            shown(other)
        )),
    }
    let collector = match default {
        Export::LocalReceiver(address) if !configured => otlp::local_receiver(signal, address, variables),
        _ => otlp::collector(signal, variables),
    };
    Some(collector.into())
}

/// Removes the exporter that is scraped from a list of exporters; returns `none` if there is no other.
fn pushed(signal: Signal, names: String) -> String {
    if !cfg!(feature = "prometheus") || signal != Signal::Metrics || !names.contains("prometheus") {
        return names;
    }
    let mut others = names
        .split(',')
        .map(str::trim)
        .filter(|name| *name != "prometheus");
    others.next().map_or("none".to_owned(), |first| {
        others.fold(first.to_owned(), |list, name| list + "," + name)
    })
}

/// Returns the variable that selects the exporter of a signal.
fn exporter_of(signal: Signal) -> String {
    format!("OTEL_{}_EXPORTER", in_variables(signal))
}

/// Implements [`crate::destination_variable`]. An endpoint for one signal is enough, because it implies a
/// collector.
pub(super) fn destination_variable(variables: &mut Variables<'_>) -> Option<String> {
    const DISABLED: &str = "OTEL_SDK_DISABLED";
    if cfg!(feature = "config-file") && variables.text(CONFIG_FILE).is_some() {
        return Some(CONFIG_FILE.to_owned());
    }
    if variables.is_true(DISABLED) {
        return Some(DISABLED.to_owned());
    }
    let mut exporter = None;
    let mut not_otlp = 0;
    for signal in Signal::ALL {
        if let Some("none" | "console" | "prometheus") = variables.keyword(&exporter_of(signal)).as_deref() {
            exporter.get_or_insert(exporter_of(signal));
            not_otlp += 1;
        } else if let Some(endpoint) = otlp::endpoint_variable(signal, variables) {
            return Some(endpoint);
        }
    }
    exporter.filter(|_| not_otlp == Signal::ALL.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(set: &[(&str, &str)]) -> Option<String> {
        let lookup = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        destination_variable(&mut Variables::new(&lookup))
    }

    #[test]
    fn an_endpoint_or_disabled_export_selects_the_destination() {
        for (set, expected) in [
            (vec![("OTEL_SDK_DISABLED", "true")], "OTEL_SDK_DISABLED"),
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318")],
                "OTEL_EXPORTER_OTLP_ENDPOINT",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs")],
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            ),
            (
                vec![
                    ("OTEL_TRACES_EXPORTER", "none"),
                    ("OTEL_METRICS_EXPORTER", "none"),
                    ("OTEL_LOGS_EXPORTER", "console"),
                ],
                "OTEL_TRACES_EXPORTER",
            ),
        ] {
            assert_eq!(selected(&set).as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_variables_do_not_select_the_destination() {
        for set in [
            vec![],
            vec![("OTEL_SDK_DISABLED", "false")],
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            vec![("OTEL_TRACES_EXPORTER", "otlp")],
            vec![("OTEL_METRICS_EXPORTER", "none")],
            // The endpoint of a disabled signal.
            vec![
                ("OTEL_METRICS_EXPORTER", "none"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics"),
            ],
        ] {
            assert_eq!(selected(&set), None, "{set:?}");
        }
    }
}
