//! The command `traces`: lists traces or prints one trace as a tree.

use std::net::SocketAddr;

use serde::Deserialize;
use telemetry::escaped;

use super::{
    Query, present, print_json, print_line,
    text::{count, duration, timestamp},
    tree,
};

/// Lists traces or prints one.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[group(skip)]
pub struct Traces {
    /// Column to sort by: start, duration, spans, errors, logs, services, name or service; descending with a minus sign
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,

    /// Text in the route or name of a span
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// Status of a span: ok or error
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Minimum duration of a span, for example 250us, 10ms or 1.5s
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<String>,

    /// Maximum duration of a span
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
    dropped_spans: u64,
}

#[derive(Deserialize)]
struct Root {
    service: String,
    name: String,
}

/// Runs the command. `pages` is the address of the pages if the command names none.
///
/// # Errors
/// Returns an error if the observatory does not respond or rejects the request.
pub async fn traces(pages: SocketAddr, command: &Traces) -> anyhow::Result<()> {
    let source = &command.query.source;
    let client = source.client(pages)?;
    if let [trace_id] = &*command.query.words
        && is_trace_id(trace_id)
    {
        let body = client.get(&["traces", trace_id], &[]).await?;
        if source.json {
            return print_json(&body);
        }
        return tree::print(&client.parse(&body)?);
    }
    let own = [
        ("sort", &command.sort),
        ("name", &command.name),
        ("status", &command.status),
        ("min_duration", &command.min_duration),
        ("max_duration", &command.max_duration),
    ];
    let parameters: Vec<_> = present(own).chain(command.query.parameters()).collect();
    let body = client.get(&["traces"], &parameters).await?;
    if source.json {
        return print_json(&body);
    }
    let found: Found = client.parse(&body)?;
    found.traces.iter().try_for_each(|trace| print_line(&line(trace)))
}

fn is_trace_id(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn line(trace: &Summary) -> String {
    let mut line = format!(
        "{}  {}  {:>8}  {:<5}  {}  {}  {}",
        timestamp(&trace.start_unix_nano),
        escaped(&trace.trace_id),
        duration(trace.duration_ns),
        if trace.errors == 0 { "ok" } else { "error" },
        escaped(&trace.root.service),
        escaped(&trace.root.name),
        count(trace.spans, "span"),
    );
    for (number, noun) in [(trace.errors, "error"), (trace.logs, "log")] {
        if number > 0 {
            line.push_str(&format!(", {}", count(number, noun)));
        }
    }
    if trace.dropped_spans > 0 {
        line.push_str(&format!(", {} dropped", count(trace.dropped_spans, "span")));
    }
    line
}
