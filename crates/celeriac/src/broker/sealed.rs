//! Seals the broker traits: this crate alone implements them.

/// Implemented by the brokers of this crate.
pub trait Sealed {}
