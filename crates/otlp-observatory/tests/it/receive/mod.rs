//! What senders see of the receivers.

mod binding;
mod grpc;
mod health;
mod http;
mod mutated;
mod passing_on;
mod requests;
