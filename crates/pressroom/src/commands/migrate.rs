//! Brings the schema to what this program needs.

use std::io::Write as _;

use anyhow::Context as _;

use super::install_cryptography;
use crate::{
    config::{Config, Database},
    store::{postgres, postgres::PostgresConfig, sqlite},
};

/// Applies what is missing and says what it was.
///
/// # Errors
/// When the database cannot be reached or a migration fails; it is then as it was before.
pub fn migrate(config: &Config) -> anyhow::Result<()> {
    install_cryptography();
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let applied = runtime.block_on(async {
        match &config.database {
            Database::Postgres(url) => {
                Ok::<_, anyhow::Error>(postgres::migrate(&PostgresConfig::parse(url.expose())?).await?)
            }
            Database::Sqlite(path) => Ok(sqlite::migrate(
                path.to_str().context("DATABASE_URL: is not UTF-8")?,
            )?),
        }
    })?;
    let mut stdout = std::io::stdout().lock();
    if applied.is_empty() {
        writeln!(stdout, "The schema is current.")?;
    }
    for migration in applied {
        writeln!(stdout, "Applied {migration}.")?;
    }
    Ok(())
}
