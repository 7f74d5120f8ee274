//! Asking workers and steering them, of whatever language, by Celery's remote control. Prints what each answers as JSON
//! under its name.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use celeriac::{Broker, Control, Reply};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

/// Which workers, and how long they have.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Asked {
    /// How long to wait for answers, in seconds
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// Only this worker (celery@host, %h for this host); may be given several times
    #[arg(long, value_name = "WORKER")]
    destination: Vec<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_hours(1) => Ok(duration),
        _ => Err("must be more than 0 and at most 3600".to_owned()),
    }
}

/// What to ask.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Inspect {
    #[arg(value_enum)]
    method: Method,
    /// Ids of tasks, for query_task
    #[arg(value_name = "TASK ID", required_if_eq("method", "query_task"))]
    ids: Vec<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Method {
    /// Whether they answer
    Ping,
    /// Tasks that run
    Active,
    /// Tasks that were taken and wait for their turn
    Reserved,
    /// Tasks that were taken and wait for their time
    Scheduled,
    /// Tasks that are known
    Registered,
    /// Ids of tasks that are not to be run
    Revoked,
    /// Counts, pool, broker, resources
    Stats,
    /// Settings
    Conf,
    /// Versions and settings as text
    Report,
    /// Queues that are taken from
    ActiveQueues,
    /// Logical clocks
    Clock,
    /// Tasks by their ids
    QueryTask,
}

/// What workers are to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Steer {
    /// Ends when what they run has finished
    Shutdown {
        #[command(flatten)]
        asked: Asked,
    },
    /// Never runs these tasks
    Revoke {
        #[arg(value_name = "TASK ID", required = true)]
        ids: Vec<String>,
        /// Ends them also where they run already
        #[arg(long)]
        terminate: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Begins tasks of a name no more often than this
    RateLimit {
        task: String,
        /// 10/s, 100/m, 3/h; 0 for any number
        rate: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Sends events about tasks, which show their arguments and results
    EnableEvents {
        #[command(flatten)]
        asked: Asked,
    },
    /// Sends no more events about tasks
    DisableEvents {
        #[command(flatten)]
        asked: Asked,
    },
}

pub(super) async fn inspect(broker: Arc<dyn Broker>, command: &Inspect) -> anyhow::Result<()> {
    let name = command.method.to_possible_value();
    let name = name.as_ref().map_or("ping", |name| name.get_name());
    let mut arguments = Map::new();
    if command.method == Method::QueryTask {
        arguments.insert("ids".to_owned(), json!(command.ids));
    } else {
        anyhow::ensure!(command.ids.is_empty(), "{name} takes no ids");
    }
    let replies = control(broker, &command.asked).inspect(name, arguments).await?;
    print(replies)
}

pub(super) async fn steer(broker: Arc<dyn Broker>, command: &Steer) -> anyhow::Result<()> {
    let replies = match command {
        Steer::Shutdown { asked } => {
            // They do not reply; who has heard it is counted by the server.
            let heard = control(broker, asked).shutdown().await?;
            anyhow::ensure!(heard > 0, "no worker listens");
            writeln!(io::stdout(), "Workers that have heard it: {heard}")?;
            return Ok(());
        }
        Steer::Revoke {
            ids,
            terminate,
            asked,
        } => control(broker, asked).revoke(ids, *terminate).await?,
        Steer::RateLimit { task, rate, asked } => control(broker, asked).rate_limit(task, rate).await?,
        Steer::EnableEvents { asked } => {
            control(broker, asked)
                .inspect("enable_events", Map::new())
                .await?
        }
        Steer::DisableEvents { asked } => {
            control(broker, asked)
                .inspect("disable_events", Map::new())
                .await?
        }
    };
    let refused = replies.iter().filter(|reply| reply.error().is_some()).count();
    print(replies)?;
    anyhow::ensure!(refused == 0, "refused by {refused} of them");
    Ok(())
}

fn control(broker: Arc<dyn Broker>, asked: &Asked) -> Control {
    let control = Control::new(broker).timeout(asked.timeout);
    if asked.destination.is_empty() {
        return control;
    }
    // A container's host name is known only in there: so can a health check ask the worker beside it.
    let own = celeriac::default_node_name();
    let host = own.split_once('@').map_or("", |(_, host)| host);
    control.destination(asked.destination.iter().map(|node| node.replace("%h", host)))
}

fn print(replies: Vec<Reply>) -> anyhow::Result<()> {
    anyhow::ensure!(!replies.is_empty(), "no worker has answered");
    let mut by_node: Vec<(String, Value)> = replies
        .into_iter()
        .map(|reply| (reply.node, reply.content))
        .collect();
    by_node.sort_by(|(one, _), (other, _)| one.cmp(other));
    let answers: Map<String, Value> = by_node.into_iter().collect();
    match writeln!(io::stdout(), "{:#}", Value::Object(answers)) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
