//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    commands::{Logs, Tasks, Traces},
    config::Options,
};

/// Said at the end of `--help`: the variables that other parts read.
const TELEMETRY_HELP: &str = "\
Telemetry (environment variables only; the OpenTelemetry specification says what they mean):
  OTEL_EXPORTER_OTLP_ENDPOINT    where traces, metrics and logs go, by OTLP http/protobuf
                                 [default: http://localhost:4318; embedded mode: the observatory]
  OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE, and the same per signal
  OTEL_SERVICE_NAME              [default: pressroom-app, pressroom-worker]
  OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_PROPAGATORS,
  OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER, OTEL_BSP_*, OTEL_BLRP_*,
  OTEL_METRIC_EXPORT_INTERVAL, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_SDK_DISABLED
  PII_MASKING                    off leaves e-mail addresses unmasked [default: on]
  RUST_LOG                       log levels, as info,pressroom=debug [default: info]

Variables are also read from a file .env in the working folder or above it; the environment wins.";

/// An articles service: REST API, background tasks, telemetry.
///
/// Without a command everything runs embedded in one process: the API, a worker, SQLite and an
/// in-process queue. Nothing needs to be installed or configured for that.
#[derive(Debug, Parser)]
#[command(name = "pressroom", version, after_help = TELEMETRY_HELP, after_long_help = TELEMETRY_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub options: Options,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Everything embedded in one process (what runs without a command)
    Dev,
    /// The API, on PostgreSQL and Redis
    Serve,
    /// The task worker, on PostgreSQL and Redis
    Worker,
    /// Creates or upgrades the schema, adopting one that the Flask system made
    Migrate,
    /// Looks after tasks in Redis by hand
    #[command(subcommand)]
    Tasks(Tasks),
    /// Shows traces, metrics and logs of services in any language in a browser (embedded mode has it too)
    Observatory,
    /// Prints traces that the observatory has
    Traces(Traces),
    /// Prints log records that the observatory has
    Logs(Logs),
    /// Prints the OpenAPI document
    Openapi,
    /// Exits 0 when the API on this machine is healthy
    Healthcheck,
    /// Prints the settings in effect for `serve` (embedded ones with --embedded), secrets masked
    Config {
        /// For embedded mode
        #[arg(long)]
        embedded: bool,
    },
}
