//! Persistence: [`postgres`] for production, [`sqlite`] for a single process.
//!
//! One trait for each aggregate, which both databases implement next to their SQL; statements and row
//! readers that are the same for both stand in `sql` and `rows`. Each method is one transaction, mostly
//! one statement, and bounds its own time. Conflicts are detected by the database's constraints.

mod accounts;
mod articles;
mod deliveries;
mod error;
mod health;
mod outbox;
pub mod postgres;
mod rows;
mod sql;
pub mod sqlite;

pub use self::{
    accounts::AccountStore,
    articles::ArticleStore,
    deliveries::DeliveryStore,
    error::{Constraint, Result, StoreError},
    health::HealthStore,
    outbox::OutboxStore,
};

/// A store of every aggregate.
pub trait Store: AccountStore + ArticleStore + OutboxStore + DeliveryStore + HealthStore {}

impl<S: AccountStore + ArticleStore + OutboxStore + DeliveryStore + HealthStore> Store for S {}
