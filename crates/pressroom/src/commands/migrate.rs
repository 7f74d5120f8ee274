//! `pressroom migrate`: creates or upgrades the schema.

use std::io::Write as _;

use anyhow::Context as _;

use super::block_on;
use crate::{
    config::{MigrateConfig, MigrateDatabase},
    store::{
        postgres::{self, TitleIndex},
        sqlite,
    },
};

/// Applies the missing migrations and prints their names. On PostgreSQL, also builds the index for searches
/// if possible. Leaves a schema that is newer than this release unchanged, so that a rollback to this release
/// works.
///
/// # Errors
/// Returns an error if the database is unavailable or a migration fails; a failed migration has no effect.
pub fn migrate(config: MigrateConfig) -> anyhow::Result<()> {
    block_on(async {
        let (migrated, database, postgres) = match config.database {
            MigrateDatabase::Sqlite(path) => (sqlite::migrate(&path), path, None),
            MigrateDatabase::Postgres { config, masked_url } => {
                (postgres::migrate(&config).await, masked_url, Some(config))
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
        let Some(config) = postgres.filter(|_| migrated.newer.is_none()) else {
            return Ok(());
        };
        stdout.flush()?;
        let indexed = postgres::index_titles(&config).await;
        let indexed = indexed
            .with_context(|| format!("DATABASE_URL: cannot build the index for searches in {database}"))?;
        let message = match indexed {
            TitleIndex::Present => return Ok(()),
            TitleIndex::Built => "Built the index for searches.".to_owned(),
            TitleIndex::InProgress => "Another process is building the index for searches.".to_owned(),
            TitleIndex::Unavailable(reason) => format!(
                "Searches read all titles, because the index for searches cannot be built: {reason}. To speed \
                searches up, create the extension pg_trgm, then run `pressroom migrate` again."
            ),
        };
        writeln!(stdout, "{message}")?;
        Ok(())
    })
}
