//! Configuration: command-line options, environment variables and defaults.
//!
//! `settings` declares each setting once. Each command has a [`Configuration`], which lists the settings that the
//! command reads and that its `--help` shows, and is validated as a whole. The `telemetry` crate reads `OTEL_*`,
//! `RUST_LOG` and `PII_MASKING`.

mod commands;
mod dotenv;
mod error;
mod given;
mod listen;
#[cfg(feature = "observatory")]
mod observatory;
mod parts;
mod process;
mod reader;
mod secret;
mod setting;
mod settings;

#[cfg(feature = "observatory")]
pub use self::observatory::{EmbeddedObservatory, ExploreConfig, ObservatoryConfig};
pub use self::{
    commands::{
        DevConfig, EverySetting, HealthcheckConfig, MigrateConfig, MigrateDatabase, ServeConfig, TasksConfig,
        WorkerConfig,
    },
    dotenv::{Dotenv, DotenvError},
    error::ConfigError,
    given::{Configuration, Given},
    listen::{Host, ListenAddress},
    parts::{ApiConfig, LogConfig, NotifyConfig, Webhook, WorkConfig},
    process::{check_encoding, misspelt_variables},
    reader::Reader,
    secret::{Secret, masked_url},
};

pub(crate) use self::commands::expand_host;

#[cfg(test)]
pub(crate) mod tests;
