//! Health checks of the database.

use async_trait::async_trait;

use super::{SqliteStore, migrations};
use crate::store::{
    HealthStore, Result,
    sql::{NEWEST_MIGRATION, PING},
};

#[async_trait]
impl HealthStore for SqliteStore {
    async fn ping(&self) -> Result<()> {
        self.row(&PING, (), |_| Ok(())).await?;
        Ok(())
    }

    async fn schema_is_current(&self) -> Result<bool> {
        let applied: Option<Option<i64>> = self.row(&NEWEST_MIGRATION, (), |row| row.get("version")).await?;
        Ok(applied.flatten() >= migrations::newest())
    }
}
