//! Where one signal goes: `OTEL_<SIGNAL>_EXPORTER`, and the OTLP settings when that is where it goes.

use super::otlp::Otlp;
use super::{Export, variables::Variables};

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// As the names of variables spell it.
    pub(super) fn in_variables(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// The path of OTLP/HTTP below the endpoint.
    pub(super) fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }
}

/// What becomes of a signal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// It is not made.
    Off,
    /// JSON lines on standard output.
    Console,
    Otlp(Box<Otlp>),
}

impl Destination {
    pub(super) fn read(signal: Signal, default: Export, variables: &mut Variables<'_>) -> Self {
        let exporter = format!("OTEL_{}_EXPORTER", signal.in_variables());
        match variables.keyword(&exporter).as_deref() {
            None if default == Export::WhenConfigured && !Otlp::is_configured(signal, variables) => {
                return Self::Off;
            }
            None | Some("otlp") => {}
            Some("none") => return Self::Off,
            Some("console") => return Self::Console,
            Some(_) => variables.warn(format!("{exporter} names an unknown exporter; otlp is used")),
        }
        Self::Otlp(Box::new(Otlp::read(signal, variables)))
    }
}
