//! Tests of the stores: a suite for both, and tests of PostgreSQL's schema, outages, replicas, poolers and
//! TLS.
#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

mod article_count;
mod durability;
mod encodings;
mod failover;
pub mod fixture;
mod isolation;
mod lists;
mod migrations;
mod outages;
mod plans;
mod pooler;
mod published;
mod replica;
mod suite;
mod title_index;
mod tls;
