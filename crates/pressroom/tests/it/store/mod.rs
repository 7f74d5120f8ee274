//! Tests of the stores: a suite for both, and tests of PostgreSQL's schema, outages, replicas, poolers and
//! TLS.
#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

mod durability;
pub mod fixture;
mod migrations;
mod outages;
mod pooler;
mod replica;
mod suite;
mod tls;
