//! Tests against a collector: each test runs its scenario in a child process and asserts on the received
//! telemetry.
#![cfg(test)]

mod batching;
mod clients;
#[cfg(feature = "config-file")]
mod declarative;
mod declared;
mod delivery;
mod endings;
mod exemplars;
mod logs;
mod masked;
mod measures;
mod outages;
mod outgoing;
mod output;
mod pipeline;
#[cfg(feature = "prometheus")]
mod prometheus;
mod requests;
mod scripted;
mod server;
mod setup;
mod shutdown;
mod support;
mod variables;
