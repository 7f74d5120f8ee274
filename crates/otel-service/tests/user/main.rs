//! The crate as a user sees it: everything that is recorded stays in memory.
#![cfg(test)]

mod api;
mod extensions;
mod metrics;
mod propagation;
mod spans;
mod support;
