//! SQLite: one file for one process, for development and small installations.
//!
//! Each aggregate has a file with its statements. All statements go through `connections`, which gives each a
//! span.

mod accounts;
mod articles;
mod connections;
mod deliveries;
mod error;
mod health;
mod list;
mod migrations;
mod outbox;
mod value;

pub use self::{connections::SqliteStore, migrations::migrate};
