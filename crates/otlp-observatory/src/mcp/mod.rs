//! Tools for coding agents, by the Model Context Protocol: over standard input and output ([`stdio`]), and over
//! streamable HTTP at `/mcp` on the port of the pages ([`routes`]).
//!
//! Every tool only reads, from the JSON of the pages, and answers with text within a limit of bytes. Telemetry comes
//! from untrusted senders and goes to a model: it is masked, fenced and free of control characters (see [`answer`]).

mod answer;
mod client;
mod http;
mod server;
mod source;
mod text;
mod tools;
mod tree;

use std::io;

use rmcp::ServiceExt as _;
pub(crate) use self::http::routes;
use self::{server::Tools, source::Source};

/// Serves the tools on standard input and output, for the observatory whose pages are at `address`. It need not run yet.
///
/// Returns when standard input ends.
///
/// # Errors
/// Fails if `address` is not an HTTP URL or the output cannot be written.
pub async fn stdio(address: &str) -> io::Result<()> {
    let tools = Tools::new(Source::Remote(client::Client::new(address).map_err(io::Error::other)?));
    match tools.serve(rmcp::transport::stdio()).await {
        Ok(running) => running.waiting().await.map(drop).map_err(io::Error::other),
        // The client left before the first request.
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
