//! `pressroom tasks`: inspects and controls the workers and the dead letters on Redis.

mod dead;
mod workers;

use std::sync::Arc;

use anyhow::Context as _;
use celeriac::{Broker, RedisBroker};
use clap::Subcommand;

pub use self::{
    dead::DeadCommand,
    workers::{ControlCommand, Inspect},
};
use super::serve::redis_config;
use crate::config::Config;

/// A subcommand of `pressroom tasks`.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Tasks {
    /// List, requeue or purge messages that no worker could run
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Query the workers and print their replies
    Inspect(Inspect),
    /// Control the workers
    #[command(subcommand)]
    Control(ControlCommand),
}

/// Runs `pressroom tasks` on the configured Redis server.
///
/// # Errors
/// When Redis is unavailable, or when the command could not be carried out completely.
pub fn tasks(config: &Config, command: &Tasks) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(redis_config(config)?)?);
    runtime.block_on(async {
        match command {
            Tasks::Dead(command) => dead::run(broker.as_ref(), command).await,
            Tasks::Inspect(command) => workers::inspect(broker, command).await,
            Tasks::Control(command) => workers::control(broker, command).await,
        }
    })
}
