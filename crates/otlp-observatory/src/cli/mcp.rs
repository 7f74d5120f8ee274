//! The command `mcp`: tools for coding agents on standard input and output, with the content of an observatory.

use std::net::SocketAddr;

use super::messages::reachable;
use crate::client::Client;

/// Serves tools for coding agents.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[group(skip)]
pub struct Mcp {
    /// URL of the observatory's pages [default: http://localhost:4319; OBSERVATORY_PORT sets the port]
    #[arg(long, value_name = "URL")]
    observatory: Option<String>,
}

/// Serves the tools until standard input ends. The observatory need not run yet.
///
/// # Errors
/// Returns an error if the address is not an HTTP URL or the output cannot be written.
pub async fn mcp(pages: SocketAddr, command: &Mcp) -> anyhow::Result<()> {
    let default = || format!("http://{}", reachable(pages));
    let client = Client::new(&command.observatory.clone().unwrap_or_else(default))?;
    Ok(crate::mcp::stdio(client).await?)
}
