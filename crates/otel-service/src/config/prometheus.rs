//! The settings of the Prometheus exporter: `OTEL_METRICS_EXPORTER`, `OTEL_EXPORTER_PROMETHEUS_HOST` and
//! `OTEL_EXPORTER_PROMETHEUS_PORT`.

use super::patterns::Patterns;
use super::variables::Variables;
use crate::service::Export;

/// Settings of the server that Prometheus scrapes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Prometheus {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether points have labels for the instrumentation scope.
    pub(crate) scope_labels: bool,
    /// Whether the resource is exported as `target_info`.
    pub(crate) target_info: bool,
    /// Resource attributes that are labels of all points.
    pub(crate) constant_labels: Option<Patterns>,
    /// Whether names end with the unit and `_total`.
    pub(crate) suffixes: bool,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 9464,
            scope_labels: true,
            target_info: true,
            constant_labels: None,
            suffixes: true,
        }
    }
}

/// Returns the settings if `OTEL_METRICS_EXPORTER` selects the exporter.
pub(super) fn prometheus(default: Export, variables: &mut Variables<'_>) -> Option<Prometheus> {
    let exporters = variables.keyword("OTEL_METRICS_EXPORTER").unwrap_or_default();
    let is_selected = exporters
        .split(',')
        .any(|exporter| exporter.trim() == "prometheus");
    if default == Export::Never {
        return None;
    }
    let default = Prometheus::default();
    let settings = Prometheus {
        host: variables
            .text("OTEL_EXPORTER_PROMETHEUS_HOST")
            .map_or(default.host, |host| host.trim().to_owned()),
        port: u16::try_from(variables.whole(
            "OTEL_EXPORTER_PROMETHEUS_PORT",
            default.port.into(),
            0,
            u16::MAX.into(),
        ))
        .unwrap_or(default.port),
        ..Prometheus::default()
    };
    is_selected.then_some(settings)
}
