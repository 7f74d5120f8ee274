//! Outgoing calls: client spans, durations, propagation. The layers are for tower clients; the feature
//! `reqwest` adds reqwest.

mod call;
mod error;
mod grpc;
mod http;
#[cfg(feature = "reqwest")]
mod reqwest;

pub use grpc::{GrpcClientBody, GrpcClientFuture, GrpcClientLayer, GrpcClientService};
pub use http::{HttpClientFuture, HttpClientLayer, HttpClientService};
