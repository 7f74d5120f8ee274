//! An HTTP server for [tower](https://docs.rs/tower-service) services, on [hyper](https://docs.rs/hyper): an
//! accept loop with limits on connections, deadlines for clients that do not send or read, strict request heads,
//! draining, and a grace period at shutdown.
//!
//! [`Server`] has the limits and runs the loop. Routing, handler time-outs and limits on request bodies are
//! the job of the service. Connections are plain TCP; a proxy in front of the server terminates TLS.
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, routing::get};
//! use bounded_server::Server;
//! use tokio::net::TcpListener;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let router = Router::new().route("/", get(|| async { "hello" }));
//! # let shutdown_signal = async {};
//! Server::new()
//!     .max_connections(1_000)
//!     .header_read_timeout(Duration::from_secs(10))
//!     .grace_period(Duration::from_secs(20))
//!     .serve(listener, router, shutdown_signal)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Request extensions
//! Every request has a [`PeerAddress`]. With [`Server::pass_invalid_requests`], a request with an invalid head has
//! an [`InvalidRequest`]. With [`Server::reserved_connections`], a request on a reserved connection has a
//! [`ReservedConnection`].
//!
//! # Features
//! `http2` (off by default) adds `Server::accept_http2`, which serves HTTP/2 without TLS beside HTTP/1.
//!
//! # Logs
//! The crate logs events with [`tracing`]: the first of consecutive accept errors at level `ERROR` and the recovery at
//! `INFO`, a reached limit at `WARN`, events of single connections at `DEBUG`.

mod body;
mod connection;
mod head;
mod invalid;
mod listeners;
mod open;
mod request_body;
mod server;
mod state;
mod stream;

pub use self::{
    connection::{PeerAddress, ReservedConnection},
    invalid::InvalidRequest,
    listeners::Listeners,
    request_body::RequestBody,
    server::{GraceExceeded, Server},
};
pub use tokio_util::sync::CancellationToken;

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
