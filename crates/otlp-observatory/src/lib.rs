//! See a service's telemetry without an account: [`Observatory`] receives OTLP, masks e-mail addresses, keeps the newest
//! in bounded memory, shows it in a browser, and forwards it to an OTLP backend when told to. It is for one machine and
//! one developer; production uses the OpenTelemetry Collector.
//!
//! ```text
//! receive ──Export──▶ ingest ──┬──▶ store ◀── pages (browser, JSON)
//! (HTTP, gRPC)       (masks)   └──▶ forward ──▶ backend
//! ```
//!
//! Telemetry is what others say: nothing in it is trusted, and all of it is bounded.

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

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
