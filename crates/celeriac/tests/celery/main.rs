//! Rust and real Celery on one Redis: what one side sends the other runs, and the results are read where they were
//! asked for. Needs Python interpreters with Celery, see `support/celery.rs`.

#![expect(clippy::unwrap_used, reason = "a test may panic, and its helpers with it")]
#![expect(
    dead_code,
    reason = "every test crate uses a part of what they share in `support`"
)]

#[path = "../support/celery.rs"]
mod celery;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod canvas;
mod handover;
mod journal;
mod kills;
mod messages;
mod mixed;
mod process;
mod python_sends;
mod rust_sends;
mod tasks;
#[cfg(feature = "telemetry")]
mod traces;

use std::time::Duration;

use celeriac::{RedisBroker, RedisConfig};

use crate::server::Server;

/// A broker that does not give up when a busy disk holds up the server.
fn patient_broker(server: &Server) -> RedisBroker {
    RedisBroker::new(RedisConfig {
        response_timeout: Duration::from_secs(60),
        ..server.config()
    })
    .unwrap()
}
