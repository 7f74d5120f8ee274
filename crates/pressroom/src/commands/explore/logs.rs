//! `pressroom logs`: the newest log records, oldest of them first, and with `--follow` those that come.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Query, block_on,
    client::Client,
    given, print_json, print_line,
    text::{escaped, escaped_json, moment, value},
};
use crate::config::Config;

/// How often the observatory is asked for what has come.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The most that the observatory answers.
const MOST_AT_ONCE: u16 = 500;

/// Attributes that repeat fields of the record.
const TOLD_ELSEWHERE: [&str; 2] = ["otelTraceID", "otelSpanID"];

/// Lists log records.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Logs {
    /// This severe or worse: trace, debug, info, warn, error or fatal
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,

    /// Of this trace
    #[arg(long, value_name = "TRACE_ID")]
    trace: Option<String>,

    /// Goes on with what comes, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    #[command(flatten)]
    query: Query,
}

#[derive(Deserialize)]
struct Found {
    logs: Vec<Value>,
    next: Option<String>,
}

/// A log record as the observatory tells it.
#[derive(Deserialize)]
pub(super) struct Record {
    time_unix_nano: String,
    service: String,
    level: String,
    body: Value,
    attributes: Map<String, Value>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

impl Record {
    pub(super) fn span_id(&self) -> Option<&str> {
        self.span_id.as_deref()
    }

    /// All of it, on one line.
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "{}  {:<5}  {}  {}",
            moment(&self.time_unix_nano),
            escaped(&self.level),
            escaped(&self.service),
            self.said()
        );
        if let Some(trace_id) = &self.trace_id {
            line.push_str(&format!("  trace={}", escaped(trace_id)));
        }
        line
    }

    /// What of it is news below its span.
    pub(super) fn short(&self) -> String {
        format!("{}  {}", escaped(&self.level), self.said())
    }

    fn said(&self) -> String {
        let mut text = value(&self.body);
        let told = |name: &str| !name.starts_with("code.") && !TOLD_ELSEWHERE.contains(&name);
        for (name, attribute) in self.attributes.iter().filter(|(name, _)| told(name)) {
            text.push_str(&format!("  {}={}", escaped(name), value(attribute)));
        }
        text
    }
}

/// Prints what was asked for.
///
/// # Errors
/// When the observatory does not answer, or refuses.
pub fn logs(config: &Config, command: &Logs) -> anyhow::Result<()> {
    block_on(run(config, command))
}

async fn run(config: &Config, command: &Logs) -> anyhow::Result<()> {
    let source = &command.query.source;
    let client = source.client(config)?;
    let own = [("level", &command.level), ("trace_id", &command.trace)];
    let parameters: Vec<_> = given(own).chain(command.query.parameters()).collect();
    let answer = client.get(&["logs"], &parameters).await?;
    if source.json && !command.follow {
        return print_json(&answer);
    }
    let newest = print_found(&client.read(&answer)?, source.json)?;
    if command.follow {
        follow(&client, parameters, newest, source.json).await
    } else {
        Ok(())
    }
}

/// Prints what comes after the record `newest`, until the observatory is away.
async fn follow(
    client: &Client,
    mut parameters: Vec<(&'static str, String)>,
    mut newest: Option<u64>,
    json: bool,
) -> anyhow::Result<()> {
    parameters.retain(|(name, _)| *name != "limit");
    parameters.push(("limit", MOST_AT_ONCE.to_string()));
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let mut parameters = parameters.clone();
        parameters.extend(newest.map(|sequence| ("after", sequence.to_string())));
        let found: Found = client.read(&client.get(&["logs"], &parameters).await?)?;
        if newest.is_some() && found.next.is_some() {
            writeln!(io::stderr(), "pressroom: more came than is shown")?;
        }
        newest = print_found(&found, json)?.or(newest);
    }
}

/// Prints records in the order in which they came, and returns the last one's number.
fn print_found(found: &Found, json: bool) -> anyhow::Result<Option<u64>> {
    for record in found.logs.iter().rev() {
        if json {
            print_line(&escaped_json(&record.to_string()))?;
        } else {
            let record = Record::deserialize(record)
                .ok()
                .context("the observatory answers no log record")?;
            print_line(&record.line())?;
        }
    }
    let newest = found.logs.first().and_then(|record| record["sequence"].as_u64());
    Ok(newest)
}
