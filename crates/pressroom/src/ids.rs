//! Where identifiers come from. Injected, so that a test can foresee them.

use uuid::Uuid;

/// A source of identifiers that never repeat.
pub trait IdSource: Send + Sync + 'static {
    /// A fresh identifier.
    fn next(&self) -> Uuid;
}

/// Random (version 4) UUIDs from the operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for randomness"
    )]
    fn next(&self) -> Uuid {
        Uuid::new_v4()
    }
}
