//! Macros that log events. With the feature `telemetry`, they add the name of the calling function
//! (`code.function.name`); without it, they are the macros of `tracing`.

#[cfg(feature = "telemetry")]
pub(crate) use telemetry::{debug, error, info, warn};
#[cfg(not(feature = "telemetry"))]
pub(crate) use tracing::{debug, error, info, warn};
