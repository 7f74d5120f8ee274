//! Brings the schema up to date, and tells whether it is.

use rusqlite::Connection;
use telemetry::Statement;

use super::{
    connections::{Connections, connect, path_of},
    error::StatementError,
};
use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Brings the schema of `sqlite://path` up to date and returns the names of the migrations that
/// were applied. [`connections::Connections::open`] does the same. Blocks while it does.
///
/// # Errors
/// [`StoreError::Unavailable`] when the file cannot be opened or is locked,
/// [`StoreError::Failed`] when a migration is refused.
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

const NEWEST_MIGRATION: Statement = Statement::new(
    "SELECT",
    "refinery_schema_history",
    "SELECT refinery_schema_history",
    "SELECT max(version) FROM refinery_schema_history",
);

pub(super) async fn schema_is_current(store: &Connections) -> Result<bool, StatementError> {
    let applied = store.read(&NEWEST_MIGRATION, |db| {
        let newest: Option<Option<i64>> = db.row(&NEWEST_MIGRATION, [], |row| row.get(0))?;
        Ok(newest.flatten())
    });
    let newest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max();
    Ok(applied.await? >= newest.map(i64::from))
}
