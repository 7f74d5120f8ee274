//! `pressroom traces`: the newest traces, or one of them as a tree.

use serde::Deserialize;

use super::{
    Query, block_on, given, print_json, print_line,
    text::{count, duration, escaped, moment},
    tree,
};
use crate::config::Config;

/// Lists traces, or shows one.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Traces {
    /// Shows this trace, with its logs
    #[arg(value_name = "TRACE_ID")]
    trace_id: Option<String>,

    /// With a span whose route or name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// With a span that ended so: ok or error
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// With a span that took so long at least, as 250us, 10ms or 1.5s
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<String>,

    /// With a span that took so long at most
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<String>,

    #[command(flatten)]
    query: Query,
}

#[derive(Deserialize)]
struct Found {
    traces: Vec<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    trace_id: String,
    root: Root,
    start_unix_nano: String,
    duration_ns: f64,
    spans: u64,
    errors: u64,
    logs: u64,
}

#[derive(Deserialize)]
struct Root {
    service: String,
    name: String,
}

/// Prints what was asked for.
///
/// # Errors
/// When the observatory does not answer, or refuses.
pub fn traces(config: &Config, command: &Traces) -> anyhow::Result<()> {
    block_on(run(config, command))
}

async fn run(config: &Config, command: &Traces) -> anyhow::Result<()> {
    let source = &command.query.source;
    let client = source.client(config)?;
    if let Some(trace_id) = &command.trace_id {
        let answer = client.get(&["traces", trace_id], &[]).await?;
        if source.json {
            return print_json(&answer);
        }
        return tree::print(&client.read(&answer)?);
    }
    let own = [
        ("name", &command.name),
        ("status", &command.status),
        ("min_duration", &command.min_duration),
        ("max_duration", &command.max_duration),
    ];
    let parameters: Vec<_> = given(own).chain(command.query.parameters()).collect();
    let answer = client.get(&["traces"], &parameters).await?;
    if source.json {
        return print_json(&answer);
    }
    let found: Found = client.read(&answer)?;
    found.traces.iter().try_for_each(|trace| print_line(&line(trace)))
}

fn line(trace: &Summary) -> String {
    let mut line = format!(
        "{}  {}  {:>8}  {:<5}  {}  {}  {}",
        moment(&trace.start_unix_nano),
        escaped(&trace.trace_id),
        duration(trace.duration_ns),
        if trace.errors == 0 { "ok" } else { "error" },
        escaped(&trace.root.service),
        escaped(&trace.root.name),
        count(trace.spans, "span"),
    );
    for (number, thing) in [(trace.errors, "error"), (trace.logs, "log")] {
        if number > 0 {
            line.push_str(&format!(", {}", count(number, thing)));
        }
    }
    line
}
