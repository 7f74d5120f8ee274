//! Tests of a running observatory over sockets.
#![cfg(test)]

mod import;
#[cfg(all(feature = "cli", feature = "mcp"))]
mod mcp;
#[cfg(feature = "cli")]
mod program;
mod receive;
mod sdks;
mod support;
