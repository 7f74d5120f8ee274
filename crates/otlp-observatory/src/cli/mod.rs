//! Settings, messages, and the commands that print telemetry. The programs `otlp-observatory` and `pressroom` share
//! them; they are not part of the crate's API.

mod explore;
mod messages;
mod settings;
mod text;

pub use explore::{Logs, Traces, logs, traces};
pub use messages::{cannot_listen, reachable, url, warn_without_login, welcome};
pub use settings::{
    OBSERVATORY_HOST, OBSERVATORY_MEMORY, OBSERVATORY_PORT, SETTINGS, Setting, SettingError, Values, config,
    pages,
};
