//! `pressroom observatory`: the observatory alone, for services in any language; it exports no telemetry about itself.
//! `pressroom traces` and `pressroom logs` print the telemetry of an observatory.

mod embedded;

pub use observatory::cli::{Logs, Traces};
use observatory::{Observatory, cli};
use telemetry::Export;

pub(super) use self::embedded::Embedded;
use super::{block_on, with_telemetry};
use crate::{
    config::{ExploreConfig, ObservatoryConfig},
    lifecycle::Lifecycle,
};

const NAME: &str = "pressroom-observatory";

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Returns an error if the observatory cannot listen or a component fails.
pub fn observatory(config: ObservatoryConfig) -> anyhow::Result<()> {
    with_telemetry(NAME, None, Export::Never, &config.log.clone(), |_| run(config))
}

async fn run(config: ObservatoryConfig) -> anyhow::Result<()> {
    let settings = config.observatory;
    cli::warn_without_login(settings.pages);
    let destination = settings.forward.as_ref().map(|forward| forward.endpoint.clone());
    let observatory = Observatory::bind(settings.clone())
        .await
        .map_err(|error| cli::cannot_listen(&settings, &error))?;
    let addresses = observatory.addresses();
    let mut lifecycle = Lifecycle::new();
    let shutdown = lifecycle.shutdown();
    lifecycle.spawn("observatory", async move { Ok(observatory.run(shutdown).await?) });
    cli::welcome(addresses, destination.as_ref());
    lifecycle.run(config.shutdown_grace, || {}).await
}

/// Prints traces of an observatory.
///
/// # Errors
/// Returns an error if the observatory does not respond or rejects the request.
pub fn traces(config: &ExploreConfig, command: &Traces) -> anyhow::Result<()> {
    block_on(cli::traces(config.pages, command))
}

/// Prints log records of an observatory.
///
/// # Errors
/// Returns an error if the observatory does not respond or rejects the request.
pub fn logs(config: &ExploreConfig, command: &Logs) -> anyhow::Result<()> {
    block_on(cli::logs(config.pages, command))
}
