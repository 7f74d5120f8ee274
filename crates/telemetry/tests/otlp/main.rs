//! The crate as a collector sees it: every test runs its scenario in a process of its own and asserts on what arrives.
#![cfg(test)]

mod logs;
mod outages;
mod requests;
mod server;
mod support;
mod tasks;
mod variables;
