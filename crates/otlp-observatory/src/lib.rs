//! Shows OpenTelemetry data without an account: an [`Observatory`] receives OTLP, masks e-mail addresses,
//! stores the newest telemetry in bounded memory, shows it in a browser, and can forward it to an OTLP
//! backend. It is for one developer on one machine; use the OpenTelemetry Collector in production.
//!
//! ```text
//! receive ──Export──▶ ingest ──┬──▶ store ◀── pages (browser, JSON)
//! (HTTP, gRPC)       (masks)   └──▶ forward ──▶ backend
//! ```
//!
//! Senders are not trusted, so received content is treated as untrusted text, and every resource is bounded.
//!
//! # Features
//! All features but `keep` and `mcp` are on by default.
//!
//! - `cli`: the program `otlp-observatory`, which `cargo install otlp-observatory` installs. Programs that embed an
//!   observatory do without it.
//! - `forward`: forwarding to a backend (`Config::forward`).
//! - `grpc`: receiving OTLP over gRPC.
//! - `keep`: telemetry is kept in a file (`Config::keep`).
//! - `mcp`: tools for coding agents by the Model Context Protocol, at `/mcp` on the port of the pages.

mod access;
#[cfg(feature = "keep")]
mod archive;
#[cfg(not(feature = "keep"))]
#[path = "archive/disabled.rs"]
mod archive;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
mod client;
mod config;
mod export;
mod first_steps;
#[cfg(feature = "forward")]
mod forward;
#[cfg(not(feature = "forward"))]
#[path = "forward/disabled.rs"]
mod forward;
mod ingest;
mod mask;
#[cfg(feature = "mcp")]
mod mcp;
mod observatory;
mod pages;
mod receive;
#[cfg(test)]
mod samples;
mod store;
#[cfg(any(feature = "cli", feature = "mcp"))]
mod text;

#[cfg(feature = "keep")]
pub use config::Keep;
pub use config::{Addresses, Config};
pub use first_steps::{FirstStep, FirstSteps};
#[cfg(feature = "forward")]
pub use forward::{Credentials, FolderError, Forwarding, Secret, StartError};
pub use observatory::{BindError, Observatory};

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
