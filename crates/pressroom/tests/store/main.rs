//! What is promised of the stores: one suite over both, PostgreSQL's schema, and its outages.

#[cfg(test)]
#[path = "../support/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "../support/postgres_proxy.rs"]
mod postgres_proxy;
#[cfg(test)]
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[cfg(test)]
#[path = "../support/sqlite.rs"]
mod sqlite;

#[cfg(test)]
mod durability;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod migrations;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod suite;
