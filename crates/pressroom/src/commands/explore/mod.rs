//! What the observatory's pages show, in a terminal: asks its JSON and prints lines. Telemetry is what others say, so
//! nothing of it reaches the terminal as a control character.

mod client;
mod logs;
mod text;
mod traces;
mod tree;

use std::io::{self, Write as _};

use anyhow::Context as _;

use self::{client::Client, text::escaped_json};
pub use self::{
    logs::{Logs, logs},
    traces::{Traces, traces},
};
use super::{install_cryptography, reachable};
use crate::config::Config;

/// Whom to ask, what for, and how to print it: the same for traces and logs.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Query {
    /// Of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// With this attribute; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    attribute: Vec<String>,

    /// With this text anywhere
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,

    /// Since this time, as 15m (ago) or 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Until this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// How many at most, of the newest
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,

    #[command(flatten)]
    source: Source,
}

/// Whom to ask, and whether for reading or for programs.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Source {
    /// Prints the observatory's JSON
    #[arg(long)]
    json: bool,

    /// Where the observatory's pages are [default: http://localhost:4319, or as OBSERVATORY_PORT says]
    #[arg(long, value_name = "URL")]
    observatory: Option<String>,
}

impl Query {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let optional = [
            ("service", &self.service),
            ("text", &self.text),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let attributes = self.attribute.iter().map(|value| ("attribute", value.clone()));
        given(optional)
            .chain(attributes)
            .chain([("limit", self.limit.to_string())])
            .collect()
    }
}

/// Those parameters that have a value.
fn given<const N: usize>(
    parameters: [(&'static str, &Option<String>); N],
) -> impl Iterator<Item = (&'static str, String)> {
    parameters
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
}

impl Source {
    fn client(&self, config: &Config) -> anyhow::Result<Client> {
        let url = match (&self.observatory, &config.observatory) {
            (Some(url), _) => url.clone(),
            (None, Some(settings)) => format!("http://{}", reachable(settings.pages)),
            (None, None) => anyhow::bail!("--observatory: is required"),
        };
        Client::new(&url)
    }
}

/// Runs a command that asks, on this thread.
fn block_on(asking: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    install_cryptography();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    match runtime.block_on(asking) {
        // The reader has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints the observatory's answer as it came, as far as a terminal bears it.
fn print_json(answer: &[u8]) -> anyhow::Result<()> {
    let answer = str::from_utf8(answer).context("the observatory's answer is not UTF-8")?;
    print_line(&escaped_json(answer))
}

/// Prints a line that is escaped already, and sees to it that it is read at once.
fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
