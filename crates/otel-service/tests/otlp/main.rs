//! The crate as a collector sees it: every test runs its scenario in a process of its own and asserts on what arrives.
#![cfg(test)]

mod batching;
mod declared;
mod delivery;
mod endings;
mod exemplars;
mod logs;
mod masked;
mod measures;
mod outages;
mod pipeline;
mod requests;
mod scripted;
mod server;
mod shutdown;
mod support;
mod tasks;
mod variables;
