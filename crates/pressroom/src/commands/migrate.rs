//! `pressroom migrate`: creates or upgrades the schema.

use std::io::Write as _;

use anyhow::Context as _;

use super::block_on;
use crate::{
    config::{MigrateConfig, MigrateDatabase},
    store::{postgres, sqlite},
};

/// Applies the missing migrations and prints their names.
///
/// # Errors
/// Returns an error if the database is unavailable or a migration fails; a failed migration has no effect.
pub fn migrate(config: MigrateConfig) -> anyhow::Result<()> {
    block_on(async {
        let (applied, database) = match config.database {
            MigrateDatabase::Sqlite(path) => (sqlite::migrate(&path), path),
            MigrateDatabase::Postgres { config, masked_url } => {
                (postgres::migrate(&config).await, masked_url)
            }
        };
        let applied = applied.with_context(|| format!("DATABASE_URL: cannot migrate {database}"))?;
        let mut stdout = std::io::stdout().lock();
        if applied.is_empty() {
            writeln!(stdout, "The schema is current.")?;
        }
        for migration in applied {
            writeln!(stdout, "Applied {migration}.")?;
        }
        Ok(())
    })
}
