//! Tools for coding agents, by the Model Context Protocol: over standard input and output ([`stdio`]), and over
//! streamable HTTP at `/mcp` on the port of the pages ([`route`]).
//!
//! Every tool only reads, from the JSON of the pages, and answers with text within a limit of bytes. Telemetry comes
//! from untrusted senders and goes to a model: it is masked, fenced and free of control characters (see [`answer`]).

mod answer;
mod http;
mod server;
mod source;
mod tools;
mod tree;

pub(crate) use self::http::route;

/// Serves the tools on standard input and output until the input ends. `observatory` need not run yet.
///
/// # Errors
/// Fails if the output cannot be written.
#[cfg(feature = "cli")]
pub(crate) async fn stdio(observatory: crate::client::Client) -> std::io::Result<()> {
    use rmcp::{ServiceExt as _, service::ServerInitializeError, transport};

    let tools = server::Tools::new(source::Source::Remote(observatory));
    match tools.serve(transport::stdio()).await {
        Ok(running) => running.waiting().await.map(drop).map_err(std::io::Error::other),
        // The input ended before the first request.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(std::io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
