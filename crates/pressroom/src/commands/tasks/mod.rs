//! `pressroom tasks`: inspects and controls the workers and the dead letters on Redis.

mod dead;
mod workers;

use std::sync::Arc;

use celeriac::{Broker, RedisBroker};
use clap::Subcommand;

pub use self::{
    dead::DeadCommand,
    workers::{ControlCommand, Inspect},
};
use super::block_on;
use crate::config::TasksConfig;

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
/// Returns an error if Redis is unavailable or the command had only part of its effect.
pub fn tasks(config: TasksConfig, command: &Tasks) -> anyhow::Result<()> {
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config.redis)?);
    block_on(async {
        match command {
            Tasks::Dead(command) => dead::run(broker.as_ref(), command).await,
            Tasks::Inspect(command) => workers::inspect(broker, command).await,
            Tasks::Control(command) => workers::control(broker, command).await,
        }
    })
}
