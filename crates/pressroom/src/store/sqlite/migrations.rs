//! Migrates the schema.

use rusqlite::Connection;

use super::connections::connect::{connect, path_of};
use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Migrates the schema of `sqlite://path`, and returns the names of the applied migrations.
///
/// Opening a [`SqliteStore`](super::SqliteStore) also migrates. This function blocks.
///
/// # Errors
/// [`StoreError::Unavailable`] if the file cannot be opened or is locked; [`StoreError::Failed`] if a
/// migration fails.
pub fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    apply(&mut connect(path_of(url))?)
}

pub(super) fn apply(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let report = embedded::migrations::runner()
        .run(connection)
        .map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// Returns the version of the newest migration in this program.
pub(super) fn newest() -> Option<i64> {
    let runner = embedded::migrations::runner();
    let versions = runner.get_migrations().iter().map(refinery::Migration::version);
    versions.max().map(i64::from)
}
