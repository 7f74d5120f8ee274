//! The command `logs`: prints the newest log records in chronological order; `--follow` also prints new records
//! as they arrive.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};
use telemetry::{escaped, escaped_json};

use super::{
    Query,
    client::Client,
    present, print_json, print_line,
    text::{timestamp, value},
};

/// Interval at which the observatory is polled for new records.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Largest `limit` that the observatory accepts.
const MAX_LIMIT: u16 = 500;

/// Attributes that repeat fields of the record.
const REDUNDANT_ATTRIBUTES: [&str; 2] = ["otelTraceID", "otelSpanID"];

/// Prints log records.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[group(skip)]
pub struct Logs {
    /// Minimum level: trace, debug, info, warn, error or fatal
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,

    /// Id of the trace that records must belong to
    #[arg(long, value_name = "TRACE_ID")]
    trace: Option<String>,

    /// Keep printing new records until Ctrl-C
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

/// A log record in the JSON of the observatory.
#[derive(Deserialize)]
pub(super) struct Record {
    time_unix_nano: String,
    service: String,
    level: String,
    body: Value,
    event_name: String,
    attributes: Map<String, Value>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

impl Record {
    pub(super) fn span_id(&self) -> Option<&str> {
        self.span_id.as_deref()
    }

    /// Formats the whole record on one line.
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "{}  {:<5}  {}  {}",
            timestamp(&self.time_unix_nano),
            escaped(&self.level),
            escaped(&self.service),
            self.message()
        );
        if let Some(trace_id) = &self.trace_id {
            line.push_str(&format!("  trace={}", escaped(trace_id)));
        }
        line
    }

    /// Formats the record for a line below its span, without time, service and trace id.
    pub(super) fn short(&self) -> String {
        format!("{}  {}", escaped(&self.level), self.message())
    }

    /// Formats the name of an event, the body and the attributes.
    fn message(&self) -> String {
        let name = (!self.event_name.is_empty()).then(|| escaped(&self.event_name).into_owned());
        let body = (!self.body.is_null()).then(|| value(&self.body));
        let is_shown = |name: &str| !name.starts_with("code.") && !REDUNDANT_ATTRIBUTES.contains(&name);
        let attributes = self.attributes.iter().filter(|(name, _)| is_shown(name));
        let attributes =
            attributes.map(|(name, attribute)| format!("{}={}", escaped(name), value(attribute)));
        name.into_iter()
            .chain(body)
            .chain(attributes)
            .collect::<Vec<_>>()
            .join("  ")
    }
}

/// Runs the command. `pages` is the address of the pages if the command names none.
///
/// # Errors
/// Returns an error if the observatory does not respond or rejects the request.
pub async fn logs(pages: SocketAddr, command: &Logs) -> anyhow::Result<()> {
    let source = &command.query.source;
    let client = source.client(pages)?;
    let own = [("level", &command.level), ("trace_id", &command.trace)];
    let parameters: Vec<_> = present(own).chain(command.query.parameters()).collect();
    let body = client.get(&["logs"], &parameters).await?;
    if source.json && !command.follow {
        return print_json(&body);
    }
    let latest = print_records(&client.parse(&body)?, source.json)?;
    if command.follow {
        follow(&client, parameters, latest, source.json).await?;
    }
    Ok(())
}

/// Prints records with a sequence number above `latest` as they arrive, until a request fails.
async fn follow(
    client: &Client,
    mut parameters: Vec<(&'static str, String)>,
    mut latest: Option<u64>,
    json: bool,
) -> anyhow::Result<()> {
    parameters.retain(|(name, _)| *name != "limit");
    parameters.push(("limit", MAX_LIMIT.to_string()));
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let mut parameters = parameters.clone();
        parameters.extend(latest.map(|sequence| ("after", sequence.to_string())));
        let found: Found = client.parse(&client.get(&["logs"], &parameters).await?)?;
        if latest.is_some() && found.next.is_some() {
            writeln!(
                io::stderr(),
                "more than {MAX_LIMIT} records arrived between two requests; the oldest are not shown"
            )?;
        }
        latest = print_records(&found, json)?.or(latest);
    }
}

/// Prints records in chronological order and returns the sequence number of the latest arrival.
fn print_records(found: &Found, json: bool) -> anyhow::Result<Option<u64>> {
    for record in found.logs.iter().rev() {
        if json {
            print_line(&escaped_json(&record.to_string()))?;
        } else {
            let record = Record::deserialize(record)
                .ok()
                .context("the response of the observatory contains a malformed log record")?;
            print_line(&record.line())?;
        }
    }
    let sequences = found.logs.iter().filter_map(|record| record["sequence"].as_u64());
    Ok(sequences.max())
}
