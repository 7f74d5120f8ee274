//! Settings, messages, and the commands that print telemetry. The programs `otlp-observatory` and `pressroom` share
//! them; they are not part of the crate's API.

mod explore;
#[cfg(feature = "mcp")]
mod mcp;
mod messages;
mod settings;

pub use explore::{Logs, Traces, logs, traces};
#[cfg(feature = "mcp")]
pub use mcp::{Mcp, mcp};
pub use messages::{cannot_listen, reachable, url, warn_without_login, welcome};
pub use settings::{
    OBSERVATORY_HEALTH_PORT, OBSERVATORY_HOST, OBSERVATORY_MEMORY, OBSERVATORY_OTLP_GRPC_PORT,
    OBSERVATORY_PORT, SETTINGS, Setting, SettingError, Values, config, pages,
};
