//! `pressroom tasks`: inspects and controls the workers and the dead letters on Redis.

mod dead;
mod workers;

use std::sync::Arc;

use celeriac::{Broker, BrokerError, RedisBroker};
use clap::Subcommand;

pub use self::{
    dead::DeadCommand,
    workers::{ControlCommand, Inspect, Target},
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
    Inspect {
        #[command(flatten)]
        query: Inspect,
        #[command(flatten)]
        target: Target,
    },
    /// Control the workers
    Control {
        #[command(subcommand)]
        command: ControlCommand,
        #[command(flatten)]
        target: Target,
    },
}

/// Runs `pressroom tasks` on the configured Redis server.
///
/// # Errors
/// Returns an error if Redis is unavailable or part of the command failed.
pub fn tasks(config: TasksConfig, command: &Tasks) -> anyhow::Result<()> {
    let server = match config.redis.server()? {
        (Some((host, port)), _) => format!("REDIS_URL: {host}:{port}"),
        (None, _) => "REDIS_URL".to_owned(),
    };
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config.redis)?);
    block_on(async {
        let result = match command {
            Tasks::Dead(command) => dead::run(broker.as_ref(), command).await,
            Tasks::Inspect { query, target } => workers::inspect(&target.control(broker), query).await,
            Tasks::Control { command, target } => workers::control(&target.control(broker), command).await,
        };
        result.map_err(|error| match error.is::<BrokerError>() {
            true => error.context(server),
            false => error,
        })
    })
}
