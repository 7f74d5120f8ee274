//! What is promised of the stores: one suite over both, PostgreSQL's schema, and its outages.

#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/postgres_proxy.rs"]
mod postgres_proxy;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[path = "../support/sqlite.rs"]
mod sqlite;

mod durability;
mod fixture;
mod migrations;
mod outages;
mod suite;
