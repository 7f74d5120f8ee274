//! For how long sending is tried: `OTEL_EXPORTER_OTLP_TIMEOUT`, common and for a signal alone.

use std::time::{Duration, Instant};

use super::{LONG, SIGNALS, one_of_each, own};
use crate::support::{self, Behaviour};

/// The exporters of the other signals are off.
fn alone(signal: &str) -> Vec<(String, String)> {
    SIGNALS
        .iter()
        .filter(|(other, _)| *other != signal)
        .map(|(other, _)| (format!("OTEL_{other}_EXPORTER"), "none".to_owned()))
        .collect()
}

/// With a collector that never answers, shutdown comes back long before its deadline.
fn give_up_early() {
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
        give_up_early,
    );
}

#[test]
fn a_signals_own_timeout_goes_before_the_common_one() {
    let name = "variables::timing::a_signals_own_timeout_goes_before_the_common_one";
    for (signal, _) in SIGNALS {
        let mut environment = alone(signal);
        environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "600000".to_owned()));
        environment.push((own(signal, "TIMEOUT"), "200".to_owned()));
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if support::run(name, Behaviour::Blackhole, &environment, give_up_early).is_none() {
            return;
        }
    }
}
