//! Health checks of the primary.

use async_trait::async_trait;

use super::{PostgresStore, migrations};
use crate::store::{HealthStore, Result, sql::PING};

#[async_trait]
impl HealthStore for PostgresStore {
    async fn ping(&self) -> Result<()> {
        self.primary.read(&PING, &[]).await?;
        Ok(())
    }

    async fn schema_is_current(&self) -> Result<bool> {
        Ok(migrations::schema_is_current(&self.primary).await?)
    }
}
