//! `pressroom migrate`: creates or upgrades the schema.

use std::io::Write as _;

use anyhow::Context as _;

use super::block_on;
use crate::{
    config::{MigrateConfig, MigrateDatabase},
    store::{postgres, sqlite},
};

/// Applies the missing migrations and prints their names. A schema that is newer than this release is left
/// unchanged, so that the previous release can be started again.
///
/// # Errors
/// Returns an error if the database is unavailable or a migration fails; a failed migration has no effect.
pub fn migrate(config: MigrateConfig) -> anyhow::Result<()> {
    block_on(async {
        let (migrated, database) = match config.database {
            MigrateDatabase::Sqlite(path) => (sqlite::migrate(&path), path),
            MigrateDatabase::Postgres { config, masked_url } => {
                (postgres::migrate(&config).await, masked_url)
            }
        };
        let migrated = migrated.with_context(|| format!("DATABASE_URL: cannot migrate {database}"))?;
        let mut stdout = std::io::stdout().lock();
        if let Some(newer) = migrated.newer {
            writeln!(
                stdout,
                "the schema is newer (V{newer}) than this release; nothing to do"
            )?;
        } else if migrated.applied.is_empty() {
            writeln!(stdout, "The schema is current.")?;
        }
        for migration in migrated.applied {
            writeln!(stdout, "Applied {migration}.")?;
        }
        Ok(())
    })
}
