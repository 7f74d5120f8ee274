//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    commands::Tasks,
    config::{
        DevConfig, EverySetting, Given, HealthcheckConfig, MigrateConfig, ServeConfig, TasksConfig,
        WorkerConfig,
    },
};
#[cfg(feature = "observatory")]
use crate::{
    commands::{Logs, Traces},
    config::{ExploreConfig, ObservatoryConfig},
};

/// Description of the variables that the telemetry crate reads, printed at the end of `--help`.
const TELEMETRY_HELP: &str = "\
Telemetry (environment variables only, as in the OpenTelemetry specification):
  OTEL_EXPORTER_OTLP_ENDPOINT    endpoint for traces, metrics and logs, by OTLP http/protobuf
                                 [default: http://localhost:4318; embedded mode: the observatory]
  OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE, _PROXY, also for each signal
  OTEL_SERVICE_NAME              [default: pressroom-app, pressroom-worker]
  OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_PROPAGATORS,
  OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER, OTEL_BSP_*, OTEL_BLRP_*,
  OTEL_METRIC_EXPORT_INTERVAL, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_SDK_DISABLED
  PII_MASKING                    off leaves e-mail addresses unmasked [default: on]
  RUST_LOG                       log levels, for example info,pressroom=debug
                                 [default: info,tokio_postgres=warn,refinery_core=warn,rmcp=warn;
                                 embedded mode: also celeriac::worker=warn]

Options override environment variables, which override a file .env in the working directory or above it.";

/// An articles service: REST API, background tasks, telemetry.
///
/// Without a command, the API, a worker, SQLite and an in-process queue run in one process and need no
/// configuration.
#[derive(Debug, Parser)]
#[command(name = "pressroom", version, after_help = TELEMETRY_HELP, after_long_help = TELEMETRY_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub settings: Given<EverySetting>,
}

/// The command to run.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run everything embedded in one process (the default)
    #[command(after_help = TELEMETRY_HELP)]
    Dev(Given<DevConfig>),
    /// Run the API, on PostgreSQL and Redis
    #[command(after_help = TELEMETRY_HELP)]
    Serve(Given<ServeConfig>),
    /// Run a task worker, on PostgreSQL and Redis
    #[command(after_help = TELEMETRY_HELP)]
    Worker(Given<WorkerConfig>),
    /// Create or upgrade the schema, including a schema that the Flask system created
    Migrate(Given<MigrateConfig>),
    /// Manage tasks in Redis
    Tasks {
        #[command(subcommand)]
        command: Tasks,
        #[command(flatten)]
        settings: Given<TasksConfig>,
    },
    /// Show telemetry of services in any language in a browser (included in embedded mode)
    #[cfg(feature = "observatory")]
    Observatory(Given<ObservatoryConfig>),
    /// Print traces from an observatory
    #[cfg(feature = "observatory")]
    Traces {
        #[command(flatten)]
        command: Traces,
        #[command(flatten)]
        settings: Given<ExploreConfig>,
    },
    /// Print log records from an observatory
    #[cfg(feature = "observatory")]
    Logs {
        #[command(flatten)]
        command: Logs,
        #[command(flatten)]
        settings: Given<ExploreConfig>,
    },
    /// Serve tools for coding agents (Model Context Protocol) on standard input and output
    #[cfg(feature = "mcp")]
    Mcp {
        #[command(flatten)]
        command: crate::commands::Mcp,
        #[command(flatten)]
        settings: Given<ExploreConfig>,
    },
    /// Print the OpenAPI document
    Openapi,
    /// Check the health of the API on this machine; the exit code is 1 if it is unhealthy
    Healthcheck {
        /// Check only whether the API accepts requests, regardless of Redis and the workers
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        settings: Given<HealthcheckConfig>,
    },
    /// Print the effective settings of `serve` and `worker`, with secrets masked
    Config {
        /// Print the settings of embedded mode instead
        #[arg(long)]
        embedded: bool,
        #[command(flatten)]
        settings: Given<EverySetting>,
    },
}
