//! Health checks of the database.

use std::fmt::Debug;

use async_trait::async_trait;

use super::error::Result;

/// Checks whether the database is usable.
#[async_trait]
pub trait HealthStore: Debug + Send + Sync + 'static {
    /// Succeeds when the database responds.
    async fn ping(&self) -> Result<()>;

    /// Returns whether the schema has every migration that this program needs.
    async fn schema_is_current(&self) -> Result<bool>;
}
