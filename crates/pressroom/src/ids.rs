//! The source of ids, which tests replace.

use std::fmt::Debug;

use uuid::Uuid;

/// A source of unique ids.
pub trait IdSource: Debug + Send + Sync + 'static {
    /// Returns a new id.
    fn next(&self) -> Uuid;
}

/// Random (version 4) UUIDs from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place that generates random ids"
    )]
    fn next(&self) -> Uuid {
        Uuid::new_v4()
    }
}
