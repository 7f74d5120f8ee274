//! `pressroom migrate`: brings the schema up to date.

use std::io::Write as _;

use anyhow::Context as _;

use super::install_cryptography;
use crate::{
    config::{MigrateConfig, MigrateDatabase},
    store::{postgres, sqlite},
};

/// Applies the missing migrations and prints their names.
///
/// # Errors
/// Returns an error if the database is unreachable or a migration fails, which then has no effect.
pub fn migrate(config: MigrateConfig) -> anyhow::Result<()> {
    let applied = match config.database {
        MigrateDatabase::Sqlite(path) => sqlite::migrate(&path)?,
        MigrateDatabase::Postgres(config) => {
            install_cryptography();
            let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
            runtime.block_on(postgres::migrate(&config))?
        }
    };
    let mut stdout = std::io::stdout().lock();
    if applied.is_empty() {
        writeln!(stdout, "The schema is current.")?;
    }
    for migration in applied {
        writeln!(stdout, "Applied {migration}.")?;
    }
    Ok(())
}
