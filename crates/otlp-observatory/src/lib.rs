//! See OpenTelemetry data without an account: an [`Observatory`] receives OTLP, masks e-mail addresses, keeps the newest
//! telemetry in bounded memory, shows it in a browser, and forwards it to an OTLP backend if configured. It is for one
//! machine and one developer; use the OpenTelemetry Collector in production.
//!
//! ```text
//! receive ──Export──▶ ingest ──┬──▶ store ◀── pages (browser, JSON)
//! (HTTP, gRPC)       (masks)   └──▶ forward ──▶ backend
//! ```
//!
//! Telemetry comes from untrusted senders: no content is trusted, and every resource is bounded.
//!
//! # Features
//! Both are on by default.
//!
//! - `forward`: forwarding to a backend (`Config::forward`).
//! - `grpc`: receiving OTLP over gRPC.

mod config;
mod export;
#[cfg(feature = "forward")]
mod forward;
#[cfg(not(feature = "forward"))]
#[path = "forward/disabled.rs"]
mod forward;
mod ingest;
mod mask;
mod observatory;
mod pages;
mod receive;
#[cfg(test)]
mod samples;
mod store;

pub use config::Config;
#[cfg(feature = "forward")]
pub use forward::{Credentials, FolderError, Forwarding, Secret, StartError};
pub use observatory::{Addresses, BindError, Observatory};

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
