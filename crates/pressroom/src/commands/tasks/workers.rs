//! `pressroom tasks inspect` and `pressroom tasks control`: Celery's remote control of workers in any
//! language. Prints the replies as one JSON object, keyed by worker name.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use celeriac::{Broker, Control, Reply};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

/// The workers to address and the time to wait for replies.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Target {
    /// Time to wait for replies, in seconds
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// Worker to address (celery@host; %h stands for this host); may be repeated [default: all workers]
    #[arg(long, value_name = "WORKER")]
    destination: Vec<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_hours(1) => Ok(duration),
        _ => Err("must be more than 0 and at most 3600".to_owned()),
    }
}

/// Arguments of `pressroom tasks inspect`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Inspect {
    /// Query to send
    #[arg(value_enum)]
    method: Method,
    /// Task ids, for query_task
    #[arg(value_name = "TASK ID", required_if_eq("method", "query_task"))]
    ids: Vec<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Method {
    /// Check that the workers respond
    Ping,
    /// Running tasks
    Active,
    /// Prefetched tasks waiting for a free slot
    Reserved,
    /// Prefetched tasks waiting for their eta
    Scheduled,
    /// Registered task names
    Registered,
    /// Ids of revoked tasks
    Revoked,
    /// Task counts, pool, broker and resource usage
    Stats,
    /// Settings
    Conf,
    /// Versions and settings as text
    Report,
    /// Queues that the workers consume
    ActiveQueues,
    /// Logical clocks
    Clock,
    /// Tasks with the given ids
    QueryTask,
}

/// A subcommand of `pressroom tasks control`.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum ControlCommand {
    /// Stop the workers once their running tasks have finished
    Shutdown {
        #[command(flatten)]
        target: Target,
    },
    /// Revoke tasks, so that they never run
    Revoke {
        #[arg(value_name = "TASK ID", required = true)]
        ids: Vec<String>,
        /// Terminate the tasks if they are running
        #[arg(long)]
        terminate: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Limit how often tasks of a name start
    RateLimit {
        /// Name of the task
        task: String,
        /// Maximum rate: 10/s, 100/m or 3/h; 0 for no limit
        rate: String,
        #[command(flatten)]
        target: Target,
    },
    /// Enable task events, which include arguments and results
    EnableEvents {
        #[command(flatten)]
        target: Target,
    },
    /// Disable task events
    DisableEvents {
        #[command(flatten)]
        target: Target,
    },
}

pub(super) async fn inspect(broker: Arc<dyn Broker>, command: &Inspect) -> anyhow::Result<()> {
    let name = command.method.to_possible_value();
    let name = name.as_ref().map_or("ping", |name| name.get_name());
    let mut arguments = Map::new();
    if command.method == Method::QueryTask {
        arguments.insert("ids".to_owned(), json!(command.ids));
    } else {
        anyhow::ensure!(command.ids.is_empty(), "{name} does not accept task ids");
    }
    let replies = command.target.address(broker).inspect(name, arguments).await?;
    print(replies)
}

pub(super) async fn control(broker: Arc<dyn Broker>, command: &ControlCommand) -> anyhow::Result<()> {
    let replies = match command {
        ControlCommand::Shutdown { target } => {
            // Workers do not reply to it; Redis counts those that received the message.
            let received = target.address(broker).shutdown().await?;
            anyhow::ensure!(received > 0, "no worker is listening");
            writeln!(io::stdout(), "Workers notified: {received}")?;
            return Ok(());
        }
        ControlCommand::Revoke {
            ids,
            terminate,
            target,
        } => target.address(broker).revoke(ids, *terminate).await?,
        ControlCommand::RateLimit { task, rate, target } => {
            target.address(broker).rate_limit(task, rate).await?
        }
        ControlCommand::EnableEvents { target } => {
            let control = target.address(broker);
            control.inspect("enable_events", Map::new()).await?
        }
        ControlCommand::DisableEvents { target } => {
            let control = target.address(broker);
            control.inspect("disable_events", Map::new()).await?
        }
    };
    let refused = replies.iter().filter(|reply| reply.error().is_some()).count();
    let printed = print(replies);
    anyhow::ensure!(refused == 0, "workers that rejected the command: {refused}");
    printed
}

impl Target {
    /// Returns a remote control for these workers.
    fn address(&self, broker: Arc<dyn Broker>) -> Control {
        let control = Control::new(broker).timeout(self.timeout);
        if self.destination.is_empty() {
            return control;
        }
        // Lets the health check of a container address the worker in it, whose host name is generated.
        let own = celeriac::default_node_name();
        let host = own.split_once('@').map_or("", |(_, host)| host);
        control.destination(self.destination.iter().map(|node| node.replace("%h", host)))
    }
}

fn print(replies: Vec<Reply>) -> anyhow::Result<()> {
    anyhow::ensure!(
        !replies.is_empty(),
        "no worker replied in time; --timeout waits longer"
    );
    let replies = replies.into_iter().map(|reply| (reply.node, reply.content));
    let by_node: BTreeMap<String, Value> = replies.collect();
    Ok(writeln!(
        io::stdout(),
        "{}",
        serde_json::to_string_pretty(&by_node)?
    )?)
}
