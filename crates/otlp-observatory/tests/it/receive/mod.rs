//! Tests of the receivers from the sender's side.

mod binding;
mod browsers;
#[cfg(feature = "forward")]
mod forwarding;
mod fuzzed;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
mod h2spec;
mod health;
mod http;
mod ports;
mod requests;
mod stalled;
