//! `pressroom tasks`: sends tasks, shows results and events, and manages workers, queues and dead letters on Redis.

mod client;
mod dead;
mod workers;

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, BrokerError, RedisBroker};
use clap::Subcommand;

use self::workers::seconds;
pub use self::{
    client::Call,
    dead::{DeadCommand, Selection},
    workers::{ControlCommand, Inspect, Target},
};
use super::block_on;
use crate::config::TasksConfig;

/// A subcommand of `pressroom tasks`.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Tasks {
    /// List, requeue or purge messages that no worker could run, and those of failed tasks
    #[command(subcommand)]
    Dead(DeadCommand),
    /// List failed tasks with their arguments, oldest first
    Failed {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Send failed tasks again, under the same ids
    Retry {
        #[command(flatten)]
        selected: Selection,
    },
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
    /// Send a task and print its id
    #[command(visible_alias = "send")]
    Call(Call),
    /// Print the state and the result of a task as JSON
    Result {
        #[arg(value_name = "TASK ID")]
        id: String,
        /// Wait until the task has ended, at most this long, in seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
    },
    /// Print the events of workers and tasks, one JSON object per line, until interrupted
    Events {
        /// Type of events to print, for example task-failed; may be repeated [default: all]
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Delete the messages that wait in queues
    Purge {
        #[arg(value_name = "QUEUE", required = true)]
        queues: Vec<String>,
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
            Tasks::Failed { json } => dead::list(broker.as_ref(), *json, true).await,
            Tasks::Retry { selected } => dead::retry(broker.as_ref(), selected).await,
            Tasks::Inspect { query, target } => workers::inspect(&target.control(broker), query).await,
            Tasks::Control { command, target } => workers::control(&target.control(broker), command).await,
            Tasks::Call(call) => client::call(broker, call).await,
            Tasks::Result { id, wait } => client::result(broker, id, *wait).await,
            Tasks::Events { types } => client::events(broker, types).await,
            Tasks::Purge { queues } => client::purge(broker.as_ref(), queues).await,
        };
        result.map_err(|error| match error.is::<BrokerError>() {
            true => error.context(server),
            false => error,
        })
    })
}
