//! The commands `traces` and `logs`, which print telemetry from the JSON API of an observatory.
//!
//! Telemetry comes from untrusted senders, so control characters in it are escaped.

mod logs;
mod traces;
mod tree;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use anyhow::Context as _;
use telemetry::escaped_json;

pub use self::{
    logs::{Logs, logs},
    traces::{Traces, traces},
};
use super::messages::reachable;
use crate::{
    client::{self, Client},
    text,
};

/// Options that `traces` and `logs` share.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Query {
    /// Query, such as: service=shop 'dur>100ms' '!name~health'; a trace id alone prints the trace, or its records
    #[arg(value_name = "QUERY")]
    words: Vec<String>,

    /// Name of the service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// Attribute that results must have; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    attribute: Vec<String>,

    /// Text that results must contain
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,

    /// Start of the time range, for example 15m (ago) or 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// End of the time range
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// Maximum number of results, newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,

    #[command(flatten)]
    source: Source,
}

/// Address of the observatory, and output format.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Source {
    /// Print the JSON from the observatory
    #[arg(long)]
    json: bool,

    /// URL of the observatory's pages [default: http://localhost:4319; OBSERVATORY_PORT sets the port]
    #[arg(long, value_name = "URL")]
    observatory: Option<String>,
}

impl Query {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let query = Some(self.words.join(" ")).filter(|query| !query.is_empty());
        let optional = [
            ("query", &query),
            ("service", &self.service),
            ("text", &self.text),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let attributes = self.attribute.iter().map(|value| ("attribute", value.clone()));
        let limit = ("limit", self.limit.to_string());
        present(optional).chain(attributes).chain([limit]).collect()
    }
}

/// Returns the parameters that have a value.
fn present<const N: usize>(
    parameters: [(&'static str, &Option<String>); N],
) -> impl Iterator<Item = (&'static str, String)> {
    parameters
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
}

impl Source {
    fn client(&self, pages: SocketAddr) -> anyhow::Result<Client> {
        let default = || format!("http://{}", reachable(pages));
        Client::new(&self.observatory.clone().unwrap_or_else(default))
    }
}

/// Prints the body of a response with control characters escaped.
fn print_json(body: &[u8]) -> anyhow::Result<()> {
    let body = str::from_utf8(body).context("the response of the observatory is not UTF-8")?;
    print_line(&escaped_json(body))
}

/// Prints an escaped line and flushes standard output. Blocks while a pipe's reader is slow.
fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
