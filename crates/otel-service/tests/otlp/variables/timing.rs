//! `OTEL_EXPORTER_OTLP_TIMEOUT`, in its common and per-signal forms.

use std::time::{Duration, Instant};

use super::{LONG, SIGNALS, one_of_each, own};
use crate::support::{self, Behaviour};

/// Returns the variables that disable the exporters of the other signals.
fn alone(signal: &str) -> Vec<(String, String)> {
    SIGNALS
        .iter()
        .filter(|(other, _)| *other != signal)
        .map(|(other, _)| (format!("OTEL_{other}_EXPORTER"), "none".to_owned()))
        .collect()
}

/// Shuts down while the collector is silent. The shutdown returns long before its deadline, because the
/// exports time out.
fn shut_down_early() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    one_of_each();
    let started = Instant::now();
    assert!(!telemetry.shutdown(LONG).unwrap_err().signals.is_empty());
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn the_common_timeout_ends_every_export() {
    let name = "variables::timing::the_common_timeout_ends_every_export";
    support::run(
        name,
        Behaviour::Blackhole,
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")],
        shut_down_early,
    );
}

#[test]
fn a_per_signal_timeout_overrides_the_common_one() {
    let name = "variables::timing::a_per_signal_timeout_overrides_the_common_one";
    for (signal, _) in SIGNALS {
        let mut environment = alone(signal);
        environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "600000".to_owned()));
        environment.push((own(signal, "TIMEOUT"), "200".to_owned()));
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if support::run(name, Behaviour::Blackhole, &environment, shut_down_early).is_none() {
            return;
        }
    }
}
