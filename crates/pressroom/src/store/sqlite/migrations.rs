//! Migrates the schema.

use rusqlite::Connection;

use super::connections::connect::{connect, path_of};
use crate::store::{Migrated, StoreError, sql::NEWEST_MIGRATION};

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Migrates the schema of `sqlite://path`. Leaves a schema that is newer than this release unchanged.
///
/// Opening a [`SqliteStore`](super::SqliteStore) also migrates. This function blocks.
///
/// # Errors
/// [`StoreError::Unavailable`] if the file cannot be opened or is locked; [`StoreError::Failed`] if a
/// migration fails.
pub fn migrate(url: &str) -> Result<Migrated, StoreError> {
    apply(&mut connect(path_of(url))?)
}

#[expect(clippy::disallowed_methods, reason = "no request causes these statements")]
pub(super) fn apply(connection: &mut Connection) -> Result<Migrated, StoreError> {
    // Fails without a schema.
    let version = connection.query_row(NEWEST_MIGRATION.text, [], |row| row.get::<_, Option<i64>>(0));
    let newer = version.ok().flatten().filter(|applied| *applied > newest());
    if newer.is_some() {
        let applied = Vec::new();
        return Ok(Migrated { applied, newer });
    }
    let report = embedded::migrations::runner()
        .run(connection)
        .map_err(|error| StoreError::Failed(error.to_string()))?;
    let applied = report.applied_migrations().iter().map(ToString::to_string);
    Ok(Migrated {
        applied: applied.collect(),
        newer,
    })
}

/// Returns the version of the newest migration in this release.
pub(super) fn newest() -> i64 {
    let runner = embedded::migrations::runner();
    let versions = runner.get_migrations().iter().map(refinery::Migration::version);
    versions.max().map_or(0, i64::from)
}
