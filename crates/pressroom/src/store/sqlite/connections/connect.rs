//! Opens connections.

use std::{path::Path, time::Duration};

use rusqlite::Connection;

use crate::store::{StoreError, sqlite::error::StatementError};

/// Path of an in-memory database, which exists as long as its store.
pub(super) const IN_MEMORY: &str = ":memory:";

/// Maximum wait for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::store::sqlite) fn path_of(url: &str) -> &str {
    url.strip_prefix("sqlite://").unwrap_or(url)
}

pub(in crate::store::sqlite) fn connect(path: &str) -> Result<Connection, StoreError> {
    if path != IN_MEMORY
        && let Some(folder) = Path::new(path).parent()
    {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok::<_, rusqlite::Error>(connection)
    };
    open().map_err(|error| StatementError::from(error).into())
}
