//! Health checks of the database.

use std::fmt::Debug;

use async_trait::async_trait;

use super::error::Result;

/// Checks whether the database is usable.
#[async_trait]
pub trait HealthStore: Debug + Send + Sync + 'static {
    /// Succeeds when the database responds.
    async fn ping(&self) -> Result<()>;

    /// Returns the properties of the database that requests depend on.
    async fn state(&self) -> Result<DatabaseState>;
}

/// Properties of a database that requests depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseState {
    pub schema: SchemaVersion,
    pub access: Access,
}

/// Version of a schema, and the version that this release needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Newest migration that was applied; `None` if there is no schema.
    pub applied: Option<i64>,
    /// Newest migration in this release.
    pub needed: i64,
}

/// Whether the database accepts writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// A setting of the server, the database or the role makes transactions read-only.
    ReadOnly,
    /// The server is a standby.
    Standby,
    /// The role may not write to every table, or a table is missing.
    Denied,
}

impl SchemaVersion {
    /// Whether the schema has every migration of this release.
    ///
    /// A newer schema is also current: migrations only add to it, and the previous release must remain ready
    /// during a roll-out.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.applied >= Some(self.needed)
    }

    /// Returns the version of a schema that is newer than this release.
    #[must_use]
    pub fn newer(&self) -> Option<i64> {
        self.applied.filter(|applied| *applied > self.needed)
    }
}

impl DatabaseState {
    /// Returns the reason requests cannot be served, with the remedy, or `None` if they can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let SchemaVersion { applied, needed } = self.schema;
        if !self.schema.is_current() {
            let applied = applied.map_or("none".to_owned(), |version| format!("V{version}"));
            return Some(format!(
                "schema is at {applied}, this release needs V{needed}: run pressroom migrate"
            ));
        }
        match self.access {
            Access::ReadWrite => None,
            Access::ReadOnly => {
                Some("the database is read-only: turn default_transaction_read_only off".to_owned())
            }
            Access::Standby => Some(
                "the database is read-only because its server is a standby: wait for the end of the \
                 fail-over, or set DATABASE_URL to the primary"
                    .to_owned(),
            ),
            Access::Denied => Some(
                "the role of DATABASE_URL may not write to every table, or a table is missing: grant it SELECT, \
                 INSERT, UPDATE and DELETE on all tables"
                    .to_owned(),
            ),
        }
    }

    /// Returns a notice about a database that can be used, or `None`.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let newer = self.schema.newer()?;
        Some(format!(
            "schema is newer (V{newer}) than this release (V{})",
            self.schema.needed
        ))
    }
}

/// Result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the applied migrations; empty if the schema was current.
    pub applied: Vec<String>,
    /// Version of a schema that is newer than this release, which is left unchanged.
    pub newer: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(applied: Option<i64>, access: Access) -> DatabaseState {
        let schema = SchemaVersion { applied, needed: 3 };
        DatabaseState { schema, access }
    }

    #[test]
    fn a_problem_names_the_versions_and_the_remedy() {
        for (applied, shown) in [(None, "none"), (Some(2), "V2")] {
            let expected = format!("schema is at {shown}, this release needs V3: run pressroom migrate");
            assert_eq!(state(applied, Access::ReadOnly).problem(), Some(expected));
        }
        assert_eq!(state(Some(3), Access::ReadWrite).problem(), None);
        assert_eq!(state(Some(4), Access::ReadWrite).problem(), None);
        for access in [Access::ReadOnly, Access::Standby] {
            let problem = state(Some(3), access).problem().unwrap();
            assert!(problem.contains("read-only"), "{problem}");
        }
        let problem = state(Some(3), Access::Denied).problem().unwrap();
        assert!(problem.contains("grant"), "{problem}");
    }

    #[test]
    fn only_a_newer_schema_has_a_notice() {
        for applied in [None, Some(2), Some(3)] {
            assert_eq!(state(applied, Access::ReadWrite).notice(), None);
        }
        let notice = state(Some(4), Access::ReadWrite).notice();
        assert_eq!(
            notice.as_deref(),
            Some("schema is newer (V4) than this release (V3)")
        );
    }
}
