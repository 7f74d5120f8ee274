//! Names of this crate's telemetry.

pub(super) use telemetry::names::{attribute, metric, span};
