//! Looking after tasks in Redis by hand.

mod dead;
mod workers;

use std::sync::Arc;

use anyhow::Context as _;
use celeriac::{Broker, RedisBroker};
use clap::Subcommand;

pub use self::{
    dead::Dead,
    workers::{Inspect, Steer},
};
use super::serve::redis_config;
use crate::config::Config;

/// What to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Tasks {
    /// Messages that no worker could run
    #[command(subcommand)]
    Dead(Dead),
    /// Asks the workers about themselves and their tasks
    Inspect(Inspect),
    /// Tells the workers what to do
    #[command(subcommand)]
    Control(Steer),
}

/// Does it, on the Redis that the configuration names.
///
/// # Errors
/// When Redis does not do what it is asked, or when not everything that was asked for could be done.
pub fn tasks(config: &Config, command: &Tasks) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(redis_config(config)?)?);
    runtime.block_on(async {
        match command {
            Tasks::Dead(command) => dead::run(broker.as_ref(), command).await,
            Tasks::Inspect(command) => workers::inspect(broker, command).await,
            Tasks::Control(command) => workers::steer(broker, command).await,
        }
    })
}
