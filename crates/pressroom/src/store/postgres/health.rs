//! Health checks of the primary.

use std::sync::Arc;

use async_trait::async_trait;

use super::{PostgresStore, migrations};
use crate::store::{DatabaseState, HealthStore, Result, sql::PING};

#[async_trait]
impl HealthStore for PostgresStore {
    async fn ping(&self) -> Result<()> {
        self.primary.read(&PING, &[]).await?;
        Ok(())
    }

    async fn state(&self) -> Result<DatabaseState> {
        let primary = Arc::clone(&self.primary);
        let state = async move { migrations::database_state(&primary).await };
        Ok(self.primary.check(state).await?)
    }
}
