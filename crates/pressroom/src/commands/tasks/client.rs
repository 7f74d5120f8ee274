//! `pressroom tasks call`, `result`, `events` and `purge`, like the commands of Celery's command line.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use celeriac::{Broker, Client, Control, ExactNumber, ResultMeta, Signature, WaitError};
use clap::Args;
use serde_json::{Map, Value};
use telemetry::{escaped, escaped_json};

use super::workers::seconds;

/// Options of `pressroom tasks call`.
#[derive(Debug, Clone, PartialEq, Args)]
#[group(skip)]
pub struct Call {
    /// Name of the task
    task: String,
    /// Positional arguments, as a JSON list
    #[arg(default_value = "[]", value_name = "ARGS", value_parser = list)]
    args: Value,
    /// Keyword arguments, as a JSON object
    #[arg(long, default_value = "{}", value_name = "JSON", value_parser = object)]
    kwargs: Map<String, Value>,
    /// Id of the task [default: random]
    #[arg(long)]
    id: Option<String>,
    /// Queue to send the task to
    #[arg(long, default_value = "celery")]
    queue: String,
    /// Minimum delay before the task runs, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = delay)]
    countdown: Option<Duration>,
    /// Priority, from 0 (first) to 9 (last)
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=9))]
    priority: Option<u8>,
    /// Wait for the result this long, in seconds, and print it instead of the id
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
}

fn delay(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok();
    let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    delay.ok_or("must be a number of at least 0")
}

fn list(text: &str) -> Result<Value, &'static str> {
    let value = ExactNumber::parse_json(text).ok();
    value.filter(Value::is_array).ok_or("must be a JSON list")
}

fn object(text: &str) -> Result<Map<String, Value>, &'static str> {
    match ExactNumber::parse_json(text) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err("must be a JSON object"),
    }
}

pub(super) async fn call(broker: Arc<dyn Broker>, call: &Call) -> anyhow::Result<()> {
    let args = call.args.as_array().cloned().unwrap_or_default();
    let mut signature = Signature::new(&call.task).args(args).queue(&call.queue);
    for (name, value) in &call.kwargs {
        signature = signature.kwarg(name, value.clone());
    }
    if let Some(id) = &call.id {
        signature = signature.id(id.as_str());
    }
    if let Some(countdown) = call.countdown {
        signature = signature.countdown(countdown);
    }
    if let Some(priority) = call.priority {
        signature = signature.priority(priority);
    }
    let id = Client::new(Arc::clone(&broker)).send(signature).await?;
    match call.wait {
        None => Ok(writeln!(io::stdout(), "{}", escaped(&id))?),
        wait => result(broker, &id, wait).await,
    }
}

/// Prints the state and the result of a task as one JSON object.
pub(super) async fn result(broker: Arc<dyn Broker>, id: &str, wait: Option<Duration>) -> anyhow::Result<()> {
    let client = Client::new(broker);
    if let Some(time) = wait
        && let Err(WaitError::Broker(error)) = client.wait(id, time).await
    {
        return Err(error.into());
    }
    let meta: Option<ResultMeta> = client.result(id).await?;
    let meta = meta.with_context(|| {
        let id = escaped(id);
        format!(
            "{id}: no result; the task has not ended, is unknown, or its result has expired or was ignored"
        )
    })?;
    let is_final = meta.status.is_final();
    writeln!(io::stdout(), "{}", escaped_json(&ExactNumber::to_json(&meta)))?;
    anyhow::ensure!(wait.is_none() || is_final, "the task did not end in time");
    Ok(())
}

/// Prints events until the process is interrupted.
pub(super) async fn events(broker: Arc<dyn Broker>, types: &[String]) -> anyhow::Result<()> {
    let mut events = Control::new(broker).events().await?;
    loop {
        let event = events.next().await;
        if types.is_empty() || types.contains(&event.kind) {
            let mut fields = event.fields;
            fields.shift_insert(0, "type".to_owned(), event.kind.into());
            fields.shift_insert(1, "hostname".to_owned(), event.hostname.into());
            writeln!(io::stdout(), "{}", escaped_json(&ExactNumber::to_json(&fields)))?;
        }
    }
}

pub(super) async fn purge(broker: &dyn Broker, queues: &[String]) -> anyhow::Result<()> {
    let mut purged = 0;
    for queue in queues {
        purged += broker.purge(queue).await?;
    }
    Ok(writeln!(io::stdout(), "Purged: {purged}")?)
}
