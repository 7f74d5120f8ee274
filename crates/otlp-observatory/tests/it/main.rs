//! Tests of a running observatory over sockets.
#![cfg(test)]

#[cfg(feature = "cli")]
mod program;
mod receive;
mod sdks;
mod support;
