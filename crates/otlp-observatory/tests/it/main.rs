//! The observatory over real sockets.
#![cfg(test)]

mod receive;
mod sdks;
mod support;
