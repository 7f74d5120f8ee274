//! Tests of a running observatory over sockets.
#![cfg(test)]

mod receive;
mod sdks;
mod support;
