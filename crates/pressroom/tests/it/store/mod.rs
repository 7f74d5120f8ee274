//! What is promised of the stores: one suite over both, PostgreSQL's schema, and its outages.

mod durability;
mod fixture;
mod migrations;
mod outages;
mod suite;
