//! SQLite: one file for one process, for development and small installations.
//!
//! Each aggregate has a file with its statements. All statements go through `connections`, which gives each a
//! span.

mod accounts;
mod articles;
mod connections;
mod deliveries;
mod error;
mod health;
mod list;
mod migrations;
mod outbox;
mod value;

use self::connections::Connections;
pub use self::migrations::migrate;
use super::Result;

/// A store on SQLite.
pub struct SqliteStore {
    connections: Connections,
}

impl SqliteStore {
    /// Opens `sqlite://path`, a path, or `:memory:`. Creates a missing file and its folder, and migrates the
    /// schema. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable) when the file cannot be opened or is
    /// locked, [`StoreError::Failed`](super::StoreError::Failed) when it is not a Pressroom database.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self {
            connections: Connections::open(url)?,
        })
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
