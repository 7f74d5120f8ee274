//! What is promised of the stores: one suite over both, PostgreSQL's schema, its outages and its
//! certificates.

mod durability;
mod fixture;
mod migrations;
mod outages;
mod suite;
mod tls;
