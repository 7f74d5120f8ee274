//! The service that sends the telemetry, as the program describes it.

use std::net::SocketAddr;

/// The service that sends the telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Default of `OTEL_SERVICE_NAME`.
    pub name: &'static str,
    /// Value of `service.version`.
    pub version: &'static str,
    /// Default exporter.
    pub export: Export,
}

impl Service {
    /// Creates a service with [`Export::Always`], the default of the specification.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            export: Export::Always,
        }
    }
}

/// Default exporter, used if `OTEL_{TRACES,METRICS,LOGS}_EXPORTER` is not set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Export {
    /// `otlp`, to `http://localhost:4318` unless an endpoint is set: the default of the specification.
    Always,
    /// `otlp` if an endpoint is set, otherwise `none`.
    ///
    /// For programs that are started by hand on machines without a collector.
    WhenConfigured,
    /// `otlp` over HTTP to this address unless an endpoint is set.
    ///
    /// For programs with a receiver on the same machine that displays telemetry as it arrives: by default,
    /// spans and log records are exported twice a second and metrics every five seconds. Variables for
    /// headers, protocol and TLS apply to a configured endpoint only, not to this receiver.
    LocalReceiver(SocketAddr),
    /// `none`, regardless of all variables.
    ///
    /// For programs that receive telemetry themselves.
    Never,
}
