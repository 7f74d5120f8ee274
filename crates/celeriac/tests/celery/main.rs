//! Rust and real Celery on one Redis: each side runs the other's tasks, and the sender reads the results.
//! Needs Python interpreters with Celery; see `support/celery.rs`.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]
#![expect(dead_code, reason = "each test crate uses only parts of `support`")]

#[path = "../support/celery.rs"]
mod celery;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod canvas;
mod context;
mod errbacks;
mod exchanges;
mod handover;
mod journal;
mod kills;
mod messages;
mod mixed;
mod postponed;
mod process;
mod python_sends;
mod replace;
mod results;
mod rust_sends;
mod tasks;
#[cfg(feature = "telemetry")]
mod traces;
mod transport_options;

use std::time::Duration;

use celeriac::RedisBroker;

use crate::server::Server;

/// Returns a broker with a time-out that a busy disk does not exceed.
fn patient_broker(server: &Server) -> RedisBroker {
    RedisBroker::new(server.config().response_timeout(Duration::from_secs(60))).unwrap()
}
