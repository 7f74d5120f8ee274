//! Health checks of the database.

use async_trait::async_trait;

use super::{SqliteStore, migrations};
use crate::store::{
    Access, DatabaseState, HealthStore, Result, SchemaVersion,
    sql::{NEWEST_MIGRATION, PING},
};

#[async_trait]
impl HealthStore for SqliteStore {
    async fn ping(&self) -> Result<()> {
        self.row(&PING, (), |_| Ok(())).await?;
        Ok(())
    }

    async fn state(&self) -> Result<DatabaseState> {
        let applied: Option<Option<i64>> = self.row(&NEWEST_MIGRATION, (), |row| row.get("version")).await?;
        let schema = SchemaVersion {
            applied: applied.flatten(),
            needed: migrations::newest(),
        };
        // If the file is not writable, the first write reports it.
        let access = if self.is_locked() {
            Access::Locked
        } else {
            Access::ReadWrite
        };
        Ok(DatabaseState { schema, access })
    }
}
