//! `pressroom tasks inspect` and `pressroom tasks control`: Celery's remote control of workers in any
//! language. The replies are printed as one JSON object, keyed by worker name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    iter,
    sync::Arc,
    time::Duration,
};

use celeriac::{Broker, Control, Reply};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::config::expand_host;

/// Workers to address, and the time to wait for their replies.
#[derive(Debug, Clone, PartialEq, Args)]
#[group(skip)]
pub struct Target {
    /// Time to wait for replies, in seconds
    #[arg(long, global = true, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// Worker to address (celery@host; %h stands for this host); may be repeated [default: all workers]
    #[arg(long, global = true, value_name = "WORKER")]
    destination: Vec<String>,
}

pub(super) fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| !duration.is_zero() && *duration <= Duration::from_hours(1))
        .ok_or("must be a number above 0 and up to 3600")
}

/// Query of `pressroom tasks inspect`.
#[derive(Debug, Clone, PartialEq, Args)]
#[group(skip)]
pub struct Inspect {
    /// Query to send
    #[arg(value_enum)]
    method: Method,
    /// Task ids, for query_task
    #[arg(value_name = "TASK ID", required_if_eq("method", "query_task"))]
    ids: Vec<String>,
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
    Shutdown,
    /// Prevent tasks from running
    Revoke {
        #[arg(value_name = "TASK ID", required = true)]
        ids: Vec<String>,
        /// Terminate the tasks if they are running
        #[arg(long)]
        terminate: bool,
    },
    /// Limit the rate at which tasks of a name start
    RateLimit {
        /// Name of the task
        task: String,
        /// Maximum rate: 10/s, 100/m or 3/h; 0 for no limit
        rate: String,
    },
    /// Set the time limits of tasks of a name
    TimeLimit {
        /// Name of the task
        task: String,
        /// Seconds after which a task is asked to end; 0 for no limit
        soft: f64,
        /// Seconds after which a task is stopped [default: no limit]
        hard: Option<f64>,
    },
    /// Receive from another queue
    AddConsumer {
        /// Name of the queue
        queue: String,
    },
    /// Stop receiving from a queue
    CancelConsumer {
        /// Name of the queue
        queue: String,
    },
    /// Enable task events, which include arguments and results
    EnableEvents,
    /// Disable task events
    DisableEvents,
}

pub(super) async fn inspect(workers: &Control, query: &Inspect) -> anyhow::Result<()> {
    let name = query.method.to_possible_value();
    let name = name.as_ref().map_or("ping", |name| name.get_name());
    let mut arguments = Map::new();
    if query.method == Method::QueryTask {
        arguments.insert("ids".to_owned(), json!(query.ids));
    } else {
        anyhow::ensure!(query.ids.is_empty(), "{name} does not accept task ids");
    }
    print(workers.inspect(name, arguments).await?)
}

pub(super) async fn control(workers: &Control, command: &ControlCommand) -> anyhow::Result<()> {
    let call = |method: &'static str, arguments: Value| async move {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        workers.inspect(method, arguments).await
    };
    let replies = match command {
        ControlCommand::Shutdown => {
            // Workers do not reply to this command; Redis returns the number of receivers.
            let received = workers.shutdown().await?;
            anyhow::ensure!(received > 0, "no worker is listening");
            writeln!(io::stdout(), "Workers notified: {received}")?;
            return Ok(());
        }
        ControlCommand::Revoke { ids, terminate } => workers.revoke(ids, *terminate).await?,
        ControlCommand::RateLimit { task, rate } => workers.rate_limit(task, rate).await?,
        ControlCommand::TimeLimit { task, soft, hard } => {
            let limits = json!({"task_name": task, "soft": soft, "hard": hard});
            call("time_limit", limits).await?
        }
        ControlCommand::AddConsumer { queue } => call("add_consumer", json!({"queue": queue})).await?,
        ControlCommand::CancelConsumer { queue } => call("cancel_consumer", json!({"queue": queue})).await?,
        ControlCommand::EnableEvents => call("enable_events", json!({})).await?,
        ControlCommand::DisableEvents => call("disable_events", json!({})).await?,
    };
    let rejected = replies.iter().filter(|reply| reply.error().is_some()).count();
    let printed = print(replies);
    anyhow::ensure!(rejected == 0, "workers that rejected the command: {rejected}");
    printed
}

impl Target {
    /// Returns a remote control for these workers.
    pub(super) fn control(&self, broker: Arc<dyn Broker>) -> Control {
        let control = Control::new(broker).timeout(self.timeout);
        if self.destination.is_empty() {
            return control;
        }
        // A container's health check uses `%h` to address the worker in it, because the host name is generated.
        control.destination(self.destination.iter().map(|name| expand_host(name)))
    }
}

fn print(replies: Vec<Reply>) -> anyhow::Result<()> {
    anyhow::ensure!(
        !replies.is_empty(),
        "no worker replied in time; --timeout waits longer"
    );
    let replies = replies.into_iter().map(|reply| (reply.node, reply.content));
    let (replies, repeated) = by_worker(replies);
    for name in repeated {
        writeln!(
            io::stderr(),
            "several workers have the name {name}; give each its own with CELERY_HOSTNAME"
        )?;
    }
    let replies = serde_json::to_string_pretty(&replies)?;
    Ok(writeln!(io::stdout(), "{replies}")?)
}

/// Returns the replies by worker, and the names that several workers share. The second worker with a name is shown as
/// `name (2)`.
fn by_worker(replies: impl Iterator<Item = (String, Value)>) -> (BTreeMap<String, Value>, BTreeSet<String>) {
    let (mut by_worker, mut repeated) = (BTreeMap::new(), BTreeSet::new());
    for (name, content) in replies {
        let numbered = (2..).map(|number| format!("{name} ({number})"));
        let mut names = iter::once(name.clone()).chain(numbered);
        let unused = names.find(|name| !by_worker.contains_key(name));
        let unused = unused.unwrap_or_else(|| name.clone());
        if unused != name {
            repeated.insert(name);
        }
        by_worker.insert(unused, content);
    }
    (by_worker, repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_the_same_name_are_all_shown() {
        let replies = [("a", 1), ("b", 2), ("a", 3), ("a", 4)];
        let replies = replies.map(|(name, content)| (name.to_owned(), json!(content)));
        let (replies, repeated) = by_worker(replies.into_iter());
        let expected = json!({"a": 1, "a (2)": 3, "a (3)": 4, "b": 2});
        assert_eq!(json!(replies), expected);
        assert_eq!(Vec::from_iter(repeated), ["a"]);
    }
}
