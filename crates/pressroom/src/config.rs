//! Configuration: command-line options, environment variables and defaults.
//!
//! Each command has a type that is complete and valid once read. `settings` lists every setting once, and a
//! [`Configuration`] names those of its command, which are also the ones that its `--help` shows. `OTEL_*`,
//! `RUST_LOG` and `PII_MASKING` are read by the `telemetry` crate.

mod commands;
mod error;
mod given;
#[cfg(feature = "observatory")]
mod observatory;
mod parts;
mod reader;
mod secret;
mod setting;
mod settings;

#[cfg(feature = "observatory")]
pub use self::observatory::ObservatoryConfig;
pub use self::{
    commands::{
        DevConfig, EverySetting, ExploreConfig, HealthcheckConfig, MigrateConfig, MigrateDatabase,
        ServeConfig, TasksConfig, WorkerConfig,
    },
    error::ConfigError,
    given::{Configuration, Given},
    parts::{ApiConfig, NotifyConfig, Webhook, WorkConfig},
    reader::Reader,
    secret::Secret,
};

#[cfg(test)]
pub(crate) mod tests;
