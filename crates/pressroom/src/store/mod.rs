//! Persistence: [`postgres`] for production, [`sqlite`] for a single process.
//!
//! Each aggregate has a trait, which both databases implement next to their SQL. Shared statements and row
//! readers are in `sql`, `list` and `rows`. Each method is one transaction, usually a single statement, and
//! has its own time-out. Constraints of the database detect conflicts.

mod accounts;
mod articles;
mod deliveries;
mod error;
mod health;
mod list;
mod outbox;
pub mod postgres;
mod published;
mod rows;
mod sql;
pub mod sqlite;

pub use self::{
    accounts::AccountStore,
    articles::ArticleStore,
    deliveries::DeliveryStore,
    error::{Constraint, Result, StoreError},
    health::{Access, DatabaseState, HealthStore, Migrated, SchemaVersion},
    outbox::{OutboxStore, lease_end},
    published::PublishedTaskStore,
};

/// A store of all aggregates.
pub trait Store: AccountStore + ArticleStore + OutboxStore + DeliveryStore + HealthStore {}

impl<S: AccountStore + ArticleStore + OutboxStore + DeliveryStore + HealthStore> Store for S {}
