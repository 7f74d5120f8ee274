//! Outgoing calls: client spans, durations, propagation. The layers work with tower clients; the feature
//! `reqwest` adds support for reqwest.

mod call;
mod error;
mod grpc;
mod http;
#[cfg(feature = "reqwest")]
mod reqwest;

pub use grpc::{GrpcClientBody, GrpcClientFuture, GrpcClientLayer, GrpcClientService};
pub use http::{HttpClientFuture, HttpClientLayer, HttpClientService};
