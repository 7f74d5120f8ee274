//! What is promised of the stores: one suite over both, PostgreSQL's schema, its outages and its
//! certificates.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the tables behind the store's back"
)]

mod durability;
mod fixture;
mod migrations;
mod outages;
mod pooler;
mod replica;
mod suite;
mod tls;
