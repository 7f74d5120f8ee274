//! The macros that log events. With the feature `telemetry` they name the function that logs
//! (`code.function.name`); without it they are those of `tracing`.

#[cfg(feature = "telemetry")]
pub(crate) use telemetry::{debug, error, info, warn};
#[cfg(not(feature = "telemetry"))]
pub(crate) use tracing::{debug, error, info, warn};
