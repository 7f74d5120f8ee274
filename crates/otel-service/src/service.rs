//! The service that sends the telemetry, as the program describes it.

use std::net::SocketAddr;

/// The service that sends the telemetry.
///
/// [`init`](crate::init()) sets up its telemetry; [`Telemetry::builder`](crate::Telemetry::builder) has more
/// settings.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Default of `OTEL_SERVICE_NAME`.
    pub name: &'static str,
    /// Value of `service.version`.
    pub version: &'static str,
    /// Default exporter.
    pub export: Export,
    /// Stream that log lines are written to, in addition to the export.
    pub log_output: LogOutput,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Default of `RUST_LOG`.
    pub log_levels: &'static str,
}

impl Service {
    /// Creates a service with [`Export::Always`], the default of the specification, which logs to standard
    /// output at the level `info`.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            export: Export::Always,
            log_output: LogOutput::Stdout,
            log_format: LogFormat::Auto,
            log_levels: "info",
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

/// Stream that log lines are written to.
///
/// A separate thread writes the lines; threads that log never wait for it. See [`print()`](crate::print()).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// No stream: log records are only exported.
    Off,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text, with colours on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}
